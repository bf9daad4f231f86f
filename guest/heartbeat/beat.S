// The innermost loop. Hand-written for two reasons: under an instruction emulator every instruction shows in the resolution of the
// gap measurement, and this way the general registers it does not need can hold known values practically all the time.
#include "evidence.h"
#include "heartbeat.h"

    .text
    .code64

    // Around calls of C functions, which may change these.
    .macro save_volatile
    push    %rdi
    push    %rsi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    .endm
    .macro restore_volatile
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rsi
    pop     %rdi
    .endm

    // One reading of the TSC, one word of memory, one general register.
    .macro beat number, register
    cli                                 // an interrupt in between would count its own duration as a gap
    rdtsc
    shl     $32, %rdx
    or      %rdx, %rax
    mov     %rax, %rcx
    sub     VCPU_LAST_TSC(%rdi), %rcx
    mov     %rax, VCPU_LAST_TSC(%rdi)
    sti
    cmp     VCPU_GAP_MAX(%rdi), %rcx
    ja      10f
    cmp     VCPU_STALL_TSC(%rdi), %rcx
    ja      10f
1:  mov     (%rsi), %rax
    cmp     %r8, %rax
    jne     11f
2:  add     %rax, %r9
    add     pass_step(%rip), %rax
    mov     %rax, (%rsi)
    add     word_step(%rip), %r8
    add     $8, %rsi
    cmp     canaries + 8 * \number(%rip), \register
    jne     12f
3:
    .pushsection .text.unlikely, "ax", @progbits
10: save_volatile
    mov     %rax, %rsi
    mov     %rcx, %rdx
    call    gap_found                   // a negative gap comes here too: it is a very large one
    restore_volatile
    jmp     1b
11: save_volatile
    mov     %r8, %rdx
    mov     %rax, %rcx
    call    memory_damaged
    restore_volatile
    mov     %r8, %rax                   // go on with what it should have been
    jmp     2b
12: save_volatile
    mov     $\number, %esi
    mov     canaries + 8 * \number(%rip), %rdx
    mov     \register, %rcx
    call    general_damaged
    restore_volatile
    mov     canaries + 8 * \number(%rip), \register
    jmp     3b
    .popsection
    .endm

    // void beats(struct vcpu_record *): BEATS rounds, interrupts on.
    .globl beats
beats:
    push    %rbx
    push    %rbp
    push    %r12
    push    %r13
    push    %r14
    push    %r15
    mov     VCPU_NEXT_WORD(%rdi), %rsi
    mov     VCPU_NEXT_VALUE(%rdi), %r8
    mov     VCPU_SUM(%rdi), %r9
    mov     canaries + 0(%rip), %rbx
    mov     canaries + 8(%rip), %rbp
    mov     canaries + 16(%rip), %r10
    mov     canaries + 24(%rip), %r11
    mov     canaries + 32(%rip), %r12
    mov     canaries + 40(%rip), %r13
    mov     canaries + 48(%rip), %r14
    mov     canaries + 56(%rip), %r15
    beat    0, %rbx
    beat    1, %rbp
    beat    2, %r10
    beat    3, %r11
    beat    4, %r12
    beat    5, %r13
    beat    6, %r14
    beat    7, %r15
    mov     %rsi, VCPU_NEXT_WORD(%rdi)
    mov     %r8, VCPU_NEXT_VALUE(%rdi)
    mov     %r9, VCPU_SUM(%rdi)
    addq    $BEATS, VCPU_BEATS(%rdi)
    pop     %r15
    pop     %r14
    pop     %r13
    pop     %r12
    pop     %rbp
    pop     %rbx
    ret

    .section .rodata
    .balign 8
canaries:
    .quad   0x5a1e0b84c9f3d267, 0x93d7f06a2c48be15, 0x0fc4a97e63b15d82, 0xe86b12d5f790a34c
    .quad   0x27b9ce4083fa6d1e, 0xbc50e7391a64f28d, 0x71e83fad06c29b54, 0xd42695cb4e0f7a38
word_step:
    .quad   WORD_STEP
pass_step:
    .quad   PASS_STEP
