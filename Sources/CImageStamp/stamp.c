#include "CImageStamp.h"
#include <signal.h>
#include <stdlib.h>

__attribute__((section(".baton.image"), used)) const volatile char image_stamp[IMAGE_STAMP_SIZE] = "none";

int image_stamp_byte(int index) { return index >= 0 && index < IMAGE_STAMP_SIZE ? image_stamp[index] : 0; }

void image_crash(void) {
    signal(SIGSEGV, SIG_DFL);
    raise(SIGSEGV);
    abort();
}
