// The way into 64-bit mode: for the first vCPU from the PVH entry point, for the others from a start-up IPI.
#include "heartbeat.h"

    .section .note.Xen, "a", @note
    .long 4, 4, 18                      // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .macro enter_long_mode
    mov     $0x20, %eax                 // PAE
    mov     %eax, %cr4
    mov     $pml4, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx           // EFER: LME, and SCE so that the SYSCALL registers mean something
    mov     $0x101, %eax
    xor     %edx, %edx
    wrmsr
    mov     $0x80010033, %eax           // PG WP NE ET MP PE
    mov     %eax, %cr0
    .endm

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
    enter_long_mode
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
    enter_long_mode
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

    .section .rodata
    .balign 8
gdt:
    .quad   0
    .quad   0x00af9b000000ffff          // 0x08: 64-bit code
    .quad   0x00cf93000000ffff          // 0x10: data
gdt_end:
gdt_pointer:
    .word   gdt_end - gdt - 1
    .long   gdt

    // The stack and the number of the vCPU that starts next.
    .data
    .balign 8
    .globl start_stack, start_index
start_stack:
    .quad   stacks + STACK_SIZE
start_index:
    .quad   0

    // The first four gigabytes mapped one to one with 2 MiB pages, the last 32 MiB (APICs) uncached. Built by the assembler: filling
    // them in at run time would be the longest part of the boot under an instruction emulator. boot.c adds more where there is more RAM.
    .balign 4096
    .globl pdpt
pml4:
    .quad   pdpt + 7
    .fill   511, 8, 0
pdpt:
    .quad   pages + 0x0007, pages + 0x1007, pages + 0x2007, pages + 0x3007
    .fill   508, 8, 0
pages:
    .set    address, 0
    .rept   2032
    .quad   address + 0x83
    .set    address, address + 0x200000
    .endr
    .rept   16
    .quad   address + 0x9b
    .set    address, address + 0x200000
    .endr
