/* The GPU that is not there, as the environment describes it: it is read at each call, so that tests can change it. */
#pragma once
#include <stddef.h>

int device_count(void);                         /* FAKECUDA_DEVICES, 1 */
void device_capability(int *major, int *minor); /* FAKECUDA_CC, 9.0 */
size_t device_memory(void);                     /* FAKECUDA_MEMORY, in bytes, 79 GiB */
size_t device_allocated(ptrdiff_t change);      /* this process's share of it, after `change` */
int device_fault(void);                         /* FAKECUDA_INIT, what the first call returns; 100: no device */
int device_unusable(void);                      /* the same, or, with FAKECUDA_BUSY=1, that nothing can be run */

/* An error as the driver and the runtime call it. Where both have one, its number is the same. */
typedef struct {
    int number;
    const char *driver, *runtime, *meaning;
} Error;

const Error *error_of(int number);

enum { OUT_OF_MEMORY = 2, UNAVAILABLE = 46, NO_DEVICE = 100 };
