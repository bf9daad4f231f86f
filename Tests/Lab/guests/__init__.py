"""What the lab's tests of Linux guests are made of; only `judge` asserts how something went.

console   a byte stream of a guest: the lines read so far, waiting for one
page      the guest's clocks, read from its memory
network   a tap, and the other end of the guest's TCP connection
disks     raw disks, and whether a file system is clean
spec      what a guest is started with
running   a guest that runs, whoever runs it
baton     run by baton-vmm, so that it can be handed over
qemu      run by QEMU: the same guest, to compare with
judge     the criteria: what a guest may have noticed, and what not
"""
