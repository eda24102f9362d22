#include "stats.h"

void histogram(const struct numbers *numbers, size_t rows, FILE *file)
{
    double low = numbers->values[0];
    double high = numbers->values[numbers->count - 1];
    size_t next = 0;

    for (size_t row = 1; row <= rows; row++) {
        double bound = low + (high - low) * (double)row / (double)rows;
        size_t first = next;
        while (next < numbers->count && (row == rows || numbers->values[next] <= bound))
            next++;
        fprintf(file, "%12.3f ", bound);
        for (size_t star = 0; star < (next - first) * 40 / numbers->count; star++)
            fputc('*', file);
        fputc('\n', file);
    }
}
