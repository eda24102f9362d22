#include "stats.h"

double mean(const struct numbers *numbers)
{
    double sum = 0;

    for (size_t i = 0; i < numbers->count; i++)
        sum += numbers->values[i];
    return sum / (double)numbers->count;
}
