// The way into 64-bit mode from the PVH entry point, for guests of one vCPU.

    .section .note.Xen, "a", @note
    .long 4, 4, 18                      // XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

    .text
    .code32
    .globl pvh_entry
pvh_entry:
    cli
    cld
    lgdtl   gdt_pointer
    mov     $0x20, %eax                 // PAE
    mov     %eax, %cr4
    mov     $pml4, %eax
    mov     %eax, %cr3
    mov     $0xc0000080, %ecx           // EFER: LME
    mov     $0x100, %eax
    xor     %edx, %edx
    wrmsr
    mov     $0x80010033, %eax           // PG WP NE ET MP PE
    mov     %eax, %cr0
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

    .bss
    .balign 16
    .skip   16384
stack_end:

    // The first four gigabytes mapped one to one with 2 MiB pages, the last of them (BARs, APICs) uncached.
    .data
    .balign 4096
pml4:
    .quad   pdpt + 7
    .fill   511, 8, 0
pdpt:
    .quad   pages + 0x0007, pages + 0x1007, pages + 0x2007, pages + 0x3007
    .fill   508, 8, 0
pages:
    .set    address, 0
    .rept   1536
    .quad   address + 0x83
    .set    address, address + 0x200000
    .endr
    .rept   512
    .quad   address + 0x9b
    .set    address, address + 0x200000
    .endr
