/* Statistics of a list of numbers. */

#ifndef STATS_H
#define STATS_H

#include <stddef.h>
#include <stdio.h>

struct numbers {
    double *values;
    size_t count;
};

/* Reads numbers until the end of the file; returns 0, or -1 when a word is no number or memory is short. */
int read_numbers(FILE *file, struct numbers *numbers);

double mean(const struct numbers *numbers);
double deviation(const struct numbers *numbers);

/* Sorts the numbers. */
double median(struct numbers *numbers);

/* Prints a bar of stars for each of `rows` equal ranges. The numbers must be sorted. */
void histogram(const struct numbers *numbers, size_t rows, FILE *file);

#endif
