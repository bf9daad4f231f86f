// Which fault a test image has: text in a section of its own, so that one program is stamped into many.
//
//     llvm-objcopy --update-section .baton.image=TEXT IN OUT      TEXT: 256 bytes, zero-padded
#ifndef CIMAGESTAMP_H
#define CIMAGESTAMP_H
#define IMAGE_STAMP_SIZE 256

int image_stamp_byte(int index);    // 0 outside
void image_crash(void);             // SIGSEGV
#endif
