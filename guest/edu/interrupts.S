// The entries of interrupts and exceptions.

    .text
    .macro interrupt name, function, argument=0
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
    mov     $\argument, %edi
    call    \function
    pop     %r11
    pop     %r10
    pop     %r9
    pop     %r8
    pop     %rdi
    pop     %rsi
    pop     %rdx
    pop     %rcx
    pop     %rax
    iretq
    .endm

    interrupt device_entry_0, device_interrupt, 0
    interrupt device_entry_1, device_interrupt, 1
    interrupt device_entry_2, device_interrupt, 2
    interrupt device_entry_3, device_interrupt, 3
    interrupt timer_entry, timer_interrupt

    .globl exception_entry
exception_entry:
    mov     %rsp, %rdi
    call    exception_taken
    ud2
