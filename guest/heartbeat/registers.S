// Moves of x87, SSE and AVX state for the C part, which is compiled without using any of it.

    .text
    .code64

    // void load_xmm(const void *values), void store_xmm(void *values): xmm0 to xmm15.
    .globl load_xmm
load_xmm:
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    movups  16 * \n(%rdi), %xmm\n
    .endr
    ret

    // void store_one_xmm(void *value, unsigned n): one register at a time, because under an instruction emulator all of them would
    // be a gap of their own.
    .globl store_one_xmm
store_one_xmm:
    mov     %esi, %esi
    lea     1f(%rip), %rax
    lea     (%rax, %rsi, 8), %rax
    jmp     *%rax
    .balign 8
1:
    .irp    n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
    .balign 8
    movups  %xmm\n, (%rdi)
    ret
    .endr

    // void load_extended(const void *area), void store_extended(void *area): x87, SSE and AVX as far as XCR0 has them.
    .globl load_extended
load_extended:
    mov     $7, %eax
    xor     %edx, %edx
    xrstor64 (%rdi)
    ret
    .globl store_extended
store_extended:
    mov     $7, %eax
    xor     %edx, %edx
    xsave64 (%rdi)
    ret
