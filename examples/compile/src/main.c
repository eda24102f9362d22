#include <stdlib.h>

#include "stats.h"

int main(void)
{
    struct numbers numbers = {NULL, 0};

    if (read_numbers(stdin, &numbers) != 0 || numbers.count == 0) {
        fprintf(stderr, "numbers are expected on the standard input\n");
        return 1;
    }
    printf("count     %zu\n", numbers.count);
    printf("mean      %.3f\n", mean(&numbers));
    printf("median    %.3f\n", median(&numbers));
    printf("deviation %.3f\n", deviation(&numbers));
    histogram(&numbers, 5, stdout);
    free(numbers.values);
    return 0;
}
