# What is installed and packed: the program, its man pages and completions (printed by the program itself, so
# that they cannot differ from it), the quadlet unit and the example workspace.
#   cpack -G DEB   or   cpack -G RPM   in the build folder
include(GNUInstallDirs)

set(manual_dir ${CMAKE_BINARY_DIR}/manual)
file(STRINGS ${CMAKE_SOURCE_DIR}/src/cmd/commands.def manual_rows REGEX "^COMMAND\\(")
set(manual_outputs)
macro(manual_output name)
  list(APPEND manual_outputs ${manual_dir}/${name})
  add_custom_command(OUTPUT ${manual_dir}/${name} DEPENDS submind
    COMMAND ${CMAKE_COMMAND} -E make_directory ${manual_dir}
    COMMAND sh -c "\"$0\" \"$@\" >'${manual_dir}/${name}'" $<TARGET_FILE:submind> ${ARGN} VERBATIM)
endmacro()
macro(manual_page name) # compressed, as the distributions want them
  manual_output(${name} man ${ARGN})
  list(APPEND manual_outputs ${manual_dir}/${name}.gz)
  add_custom_command(OUTPUT ${manual_dir}/${name}.gz DEPENDS ${manual_dir}/${name}
    COMMAND gzip -9nkf ${manual_dir}/${name} VERBATIM)
endmacro()
manual_page(submind.1)
foreach(row ${manual_rows})
  string(REGEX REPLACE "^COMMAND\\(\"([^\"]+)\".*" "\\1" command "${row}")
  manual_page(submind-${command}.1 ${command})
endforeach()
manual_output(submind.bash completion bash)
manual_output(_submind completion zsh)
manual_output(submind.fish completion fish)
add_custom_target(manual ALL DEPENDS ${manual_outputs})

install(TARGETS submind)
install(DIRECTORY ${manual_dir}/ DESTINATION ${CMAKE_INSTALL_MANDIR}/man1 FILES_MATCHING PATTERN "*.1.gz")
install(FILES ${manual_dir}/submind.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions
  RENAME submind)
foreach(folder vendor-completions site-functions) # where Debian's zsh looks, and everybody else's
  install(FILES ${manual_dir}/_submind DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/${folder})
endforeach()
install(FILES ${manual_dir}/submind.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright) # Debian's name for it
install(FILES README.md packaging/CONTAINERS.md packaging/quadlet/submind.container
  DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY examples/workspace DESTINATION ${CMAKE_INSTALL_DOCDIR}/examples)

set(CPACK_PACKAGE_NAME submind)
set(CPACK_PACKAGE_VENDOR "Submind")
set(CPACK_PACKAGE_CONTACT "Submind <submind@localhost>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "Local brain for background agents")
set(CPACK_PACKAGE_DESCRIPTION "Serves a GGUF model over the OpenAI API and runs small agents on it.
What all agents of a workspace start with is computed once and kept.")
set(CPACK_RESOURCE_FILE_LICENSE ${CMAKE_SOURCE_DIR}/LICENSE)
set(CPACK_STRIP_FILES ON)
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_RECOMMENDS "bubblewrap, ca-certificates, libzmq5")
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "tuned, podman")
set(CPACK_RPM_FILE_NAME RPM-DEFAULT)
set(CPACK_RPM_PACKAGE_LICENSE MIT)
set(CPACK_RPM_PACKAGE_AUTOREQ ON)
set(CPACK_RPM_PACKAGE_DESCRIPTION "${CPACK_PACKAGE_DESCRIPTION}")
set(CPACK_RPM_PACKAGE_SUGGESTS "bubblewrap, zeromq, tuned, podman")
set(CPACK_RPM_EXCLUDE_FROM_AUTO_FILELIST_ADDITION /usr/share/zsh /usr/share/zsh/vendor-completions
  /usr/share/zsh/site-functions /usr/share/fish /usr/share/fish/vendor_completions.d /usr/share/man /usr/share/man/man1
  /usr/share/bash-completion /usr/share/bash-completion/completions)
include(CPack)
