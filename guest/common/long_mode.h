// For the assembler: what the guests' ways into 64-bit mode are made of.

    .macro pvh_note entry
    .section .note.Xen, "a", @note
    .long 4, 4, 18                      // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long \entry
    .endm

    // `efer`: LME, and what else is wanted.
    .macro enter_long_mode efer
    mov     $0x20, %eax                 // PAE
    mov     %eax, %cr4
    mov     $pml4, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx
    mov     $\efer, %eax
    xor     %edx, %edx
    wrmsr
    mov     $0x80010033, %eax           // PG WP NE ET MP PE
    mov     %eax, %cr0
    .endm

    .macro descriptor_table
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
    .endm

    // The first four gigabytes mapped one to one with 2 MiB pages, the last `uncached` of them for devices. Built by the assembler: filling
    // them in at run time would be the longest part of the boot under an instruction emulator.
    .macro page_tables uncached
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
    .rept   2048 - \uncached
    .quad   address + 0x83
    .set    address, address + 0x200000
    .endr
    .rept   \uncached
    .quad   address + 0x9b
    .set    address, address + 0x200000
    .endr
    .endm
