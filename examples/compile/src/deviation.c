#include <math.h>

#include "stats.h"

double deviation(const struct numbers *numbers)
{
    double center = mean(numbers);
    double sum = 0;

    for (size_t i = 0; i < numbers->count; i++)
        sum += (numbers->values[i] - center) * (numbers->values[i] - center);
    return sqrt(sum / (double)numbers->count);
}
