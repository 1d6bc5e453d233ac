// The built-in model, as bytes in the read-only data of the program. EMBEDDED_MODEL comes from CMake.
    .section .rodata
    .balign 64
    .global submind_embedded_model
    .global submind_embedded_model_end
submind_embedded_model:
    .incbin EMBEDDED_MODEL
submind_embedded_model_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
