# GPU kernels: compiled here, embedded in the binary, loaded by src/compute/gpu.c.
#   nvcc, where CUDA is installed      -> a fatbin a file: machine code for sm_80 and sm_90a, PTX for others
#   clang-19 (or newer) without CUDA   -> PTX a file for sm_80 and for sm_90a
#   neither                            -> the binary works without a GPU and says why
set(SUBMIND_KERNEL_COMPILER "auto" CACHE STRING "auto, nvcc, clang or none: what compiles the GPU kernels")
set(SUBMIND_NVCC_TARGETS "-gencode;arch=compute_80,code=[sm_80,compute_80];-gencode;arch=compute_90a,code=sm_90a"
  CACHE STRING "nvcc's targets; fewer build faster")
file(GLOB kernel_sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.cu)
file(GLOB kernel_headers CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/cuda/*.h
  ${CMAKE_SOURCE_DIR}/kernels/common/*.h ${CMAKE_SOURCE_DIR}/kernels/common/*.def)
find_program(SUBMIND_NVCC nvcc HINTS /usr/local/cuda/bin)
find_program(SUBMIND_CLANG_CUDA NAMES clang-22 clang-21 clang-20 clang-19)

set(kernel_by none)
if(SUBMIND_KERNEL_COMPILER MATCHES "^(auto|nvcc)$" AND SUBMIND_NVCC)
  set(kernel_by nvcc)
elseif(SUBMIND_KERNEL_COMPILER MATCHES "^(auto|clang)$" AND SUBMIND_CLANG_CUDA)
  set(kernel_by clang)
endif()

set(kernel_dir ${CMAKE_BINARY_DIR}/kernels)
file(MAKE_DIRECTORY ${kernel_dir})
set(kernel_outputs)
set(kernel_rows "")
set(kernel_data "")

# kernel_embed(NAME ARCH FILE): one row of the table of images
function(kernel_embed name arch file)
  string(REPLACE "." "_" symbol "${name}_${arch}")
  set(kernel_outputs ${kernel_outputs} ${file} PARENT_SCOPE)
  string(APPEND kernel_data "
    .balign 64
image_${symbol}: .incbin \"${file}\"
    .byte 0
name_${symbol}: .asciz \"${name}\"\n")
  string(APPEND kernel_rows "
    .quad name_${symbol}
    .long ${arch}, 0
    .quad image_${symbol}\n")
  set(kernel_data "${kernel_data}" PARENT_SCOPE)
  set(kernel_rows "${kernel_rows}" PARENT_SCOPE)
endfunction()

foreach(source ${kernel_sources})
  get_filename_component(name ${source} NAME_WE)
  if(kernel_by STREQUAL nvcc)
    set(out ${kernel_dir}/${name}.fatbin)
    add_custom_command(OUTPUT ${out}
      COMMAND ${SUBMIND_NVCC} -fatbin -O3 -std=c++17 -I${CMAKE_SOURCE_DIR} -diag-suppress=128,186
        ${SUBMIND_NVCC_TARGETS} --threads 2 -o ${out} ${source}
      DEPENDS ${source} ${kernel_headers} COMMENT "kernels: ${name}.fatbin" VERBATIM)
    kernel_embed(${name}.cu 0 ${out})
  elseif(kernel_by STREQUAL clang) # pass-failed: an unrolling that clang cannot do is no defect
    foreach(arch 80 90)
      set(gpu sm_${arch})
      if(arch EQUAL 90)
        set(gpu sm_90a)
      endif()
      set(out ${kernel_dir}/${name}.${gpu}.ptx)
      add_custom_command(OUTPUT ${out}
        COMMAND ${SUBMIND_CLANG_CUDA} -x cuda --cuda-device-only --cuda-gpu-arch=${gpu} -nocudainc
          -nocudalib -Wno-unknown-cuda-version -Wno-pass-failed -std=c++17 -O3 -I${CMAKE_SOURCE_DIR} -S -o ${out} ${source}
        DEPENDS ${source} ${kernel_headers} COMMENT "kernels: ${name}.${gpu}.ptx" VERBATIM)
      kernel_embed(${name}.cu ${arch} ${out})
    endforeach()
  endif()
endforeach()

set(kernel_note "compiled by ${kernel_by}")
if(kernel_by STREQUAL none)
  set(kernel_note "neither nvcc nor clang-19 was there when it was built")
  message(STATUS "GPU kernels left out: install CUDA or clang-19 to have them")
else()
  message(STATUS "GPU kernels: ${kernel_note}")
endif()

file(CONFIGURE OUTPUT ${kernel_dir}/images.S CONTENT "/* Made by cmake/kernels.cmake. */
    .section .rodata
${kernel_data}
    .global gpu_images_by
gpu_images_by: .asciz \"${kernel_note}\"
    .section .data.rel.ro, \"aw\"
    .balign 8
    .global gpu_images
gpu_images:
${kernel_rows}
    .quad 0, 0, 0
    .section .note.GNU-stack, \"\", @progbits
" @ONLY)
if(TARGET compute)
  target_sources(compute PRIVATE ${kernel_dir}/images.S)
  set_source_files_properties(${kernel_dir}/images.S PROPERTIES OBJECT_DEPENDS "${kernel_outputs}")
endif()
