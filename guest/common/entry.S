// The way into 64-bit mode from the PVH entry point, for guests of one vCPU.

#include "long_mode.h"

    pvh_note pvh_entry

    .text
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    lgdtl   gdt_pointer
    enter_long_mode 0x100
    ljmpl   $8, $1f
    .code64
1:  mov     $16, %eax
    mov     %eax, %ds
    mov     %eax, %es
    mov     %eax, %ss
    lea     stack_end(%rip), %rsp
    mov     %ebx, %edi                  // address of the start_info
    call    boot
    ud2

    descriptor_table

    .bss
    .balign 16
    .skip   16384
stack_end:

    .data
    page_tables 512                     // the last gigabyte: BARs, APICs
