// Interrupt and exception entries. IRET is not emulated outside real mode where KVM runs a guest in its instruction emulator, so a
// handler copies flags and return address to the interrupted stack and leaves by POPF and RET: interrupts come in at the same
// privilege, always.

#include "evidence.h"

    .text
    .code64

    .macro interrupt name, function
    .globl \name
\name:
    push    %rax
    push    %rcx
    push    %rdx
    push    %rsi
    push    %rdi
    push    %r8
    push    %r9
    push    %r10
    push    %r11
    call    \function
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    // Stack: rcx rax rip cs rflags rsp ss. The interrupted stack may overlap the slots of rsp and ss, nothing below.
    mov     40(%rsp), %rcx
    mov     32(%rsp), %rax
    mov     %rax, -16(%rcx)
    mov     16(%rsp), %rax
    mov     %rax, -8(%rcx)
    sub     $16, %rcx
    mov     %rcx, 16(%rsp)
    pop     %rcx
    pop     %rax
    pop     %rsp
    popfq
    ret
    .endm

    interrupt timer_entry, timer_interrupt
    interrupt pit_entry, pit_interrupt
    interrupt ipi_entry, ipi_interrupt
    interrupt stray_entry, stray_interrupt

    // The in-service register would tell the vector, but not every hypervisor shows it.
    .globl stray_entries
    .balign 16
stray_entries:
    .set    vector, 32
    .rept   224
    movb    $vector, %gs:VCPU_STRAY
    jmp     stray_entry
    .balign 16
    .set    vector, vector + 1
    .endr

    // Exceptions end the vCPU. One eight-byte stub each leaves the vector on the stack, above a possible error code.
    .globl exception_entries
    .balign 8
exception_entries:
    .set    vector, 0
    .rept   32
    pushq   $vector
    jmp     exception
    .balign 8
    .set    vector, vector + 1
    .endr
exception:
    mov     %rsp, %rdi
    call    exception_taken
    ud2
