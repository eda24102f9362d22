#include <stdlib.h>

#include "stats.h"

int read_numbers(FILE *file, struct numbers *numbers)
{
    size_t room = 0;
    double value;
    int found;

    while ((found = fscanf(file, "%lf", &value)) == 1) {
        if (numbers->count == room) {
            room = room ? 2 * room : 64;
            double *more = realloc(numbers->values, room * sizeof *more);
            if (more == NULL)
                return -1;
            numbers->values = more;
        }
        numbers->values[numbers->count++] = value;
    }
    return found == EOF ? 0 : -1;
}
