#include <stdlib.h>

#include "stats.h"

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double median(struct numbers *numbers)
{
    size_t half = numbers->count / 2;

    qsort(numbers->values, numbers->count, sizeof *numbers->values, compare);
    if (numbers->count % 2)
        return numbers->values[half];
    return (numbers->values[half - 1] + numbers->values[half]) / 2;
}
