"""What the end-to-end tests are made of; nothing here asserts how a handover ends.

programs    where the programs, images and guests are
processes   what /proc says of a process, and waiting with a deadline
supervisor  baton-keep and batond in a private directory, and the `baton` command line
machine     one machine of a supervisor
evidence    what the guest saw, read from its memory
clocks      the guest's clocks against the host's
control     the control socket without the command line
tsc_offset  whether KVM honours KVM_VCPU_TSC_OFFSET here
images      worker images, honest and stamped with a fault
"""
