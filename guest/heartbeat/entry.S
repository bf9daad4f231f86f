// The way into 64-bit mode: for the first vCPU from the PVH entry point, for the others from a start-up IPI.
#include "heartbeat.h"
#include "../common/long_mode.h"

    pvh_note pvh_entry

    .macro load_segments
    mov     $16, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    xor     %eax, %eax
    mov     %eax, %fs
    mov     %eax, %gs
    .endm

    .text
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    lgdtl   gdt_pointer
    enter_long_mode 0x101               // SCE as well, so that the SYSCALL registers mean something
    ljmpl   $8, $1f
    .code64
1:  load_segments
    mov     start_stack(%rip), %rsp
    mov     %ebx, %edi                  // address of the start_info
    call    boot
    ud2

    // boot copies this below 1 MiB. It runs in real mode with CS at its first byte.
    .code16
    .globl trampoline, trampoline_end
trampoline:
    cli
    cld
    mov     %cs, %ax
    mov     %ax, %ds
    lgdtl   trampoline_gdt_pointer - trampoline
    enter_long_mode 0x101               // SCE as well, so that the SYSCALL registers mean something
    ljmpl   $8, $secondary_entry
    .balign 4
trampoline_gdt_pointer:
    .word   gdt_end - gdt - 1
    .long   gdt
trampoline_end:

    .code64
secondary_entry:
    load_segments
    mov     start_stack(%rip), %rsp
    mov     start_index(%rip), %edi
    call    start_secondary
    ud2

    descriptor_table

    // The stack and the number of the vCPU that starts next.
    .data
    .balign 8
    .globl start_stack, start_index
start_stack:
    .quad   stacks + STACK_SIZE
start_index:
    .quad   0

    // boot.c adds more where there is more RAM.
    page_tables 16                      // the last 32 MiB: APICs
