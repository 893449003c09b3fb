# quiver_embed_web(SOURCE NAMESPACE HEADER FOLDER): writes SOURCE, a .cpp that defines what HEADER declares, in NAMESPACE:
#
#   struct WebFile { std::string_view name, content_type, etag, content, gzip; };
#   extern const std::span<const WebFile> kWebFiles;
#
# one for each .html, .js and .css file of FOLDER, with its SHA-256 as `etag`. SOURCE is written when CMake runs, and only if it changes. A
# changed file makes CMake run again.
function(quiver_embed_web source namespace header folder)
  file(GLOB files CONFIGURE_DEPENDS "${folder}/*.html" "${folder}/*.js" "${folder}/*.css")
  set(types_html "text/html; charset=utf-8")
  set(types_js "text/javascript; charset=utf-8")
  set(types_css "text/css; charset=utf-8")
  set(text "// Written by cmake/embed_web.cmake.\n#include \"${header}\"\n\nnamespace ${namespace} {\nnamespace {\n\nconst WebFile kFiles[] = {\n")
  foreach(file ${files})
    set_property(DIRECTORY "${CMAKE_SOURCE_DIR}" APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${file}")
    get_filename_component(name "${file}" NAME)
    string(REGEX REPLACE ".*\\." "" ending "${name}")
    set(archive "${CMAKE_BINARY_DIR}/embed_web.gz")
    file(ARCHIVE_CREATE OUTPUT "${archive}" PATHS "${file}" FORMAT raw COMPRESSION GZip)
    file(SHA256 "${file}" hash)
    string(APPEND text "    {\"${name}\", \"${types_${ending}}\", \"\\\"${hash}\\\"\"")
    foreach(bytes "${file}" "${archive}")
      file(SIZE "${bytes}" size)
      file(READ "${bytes}" hex HEX)
      if(bytes STREQUAL archive)  # the time of packing, which would make every build another
        string(SUBSTRING "${hex}" 0 8 start)
        string(SUBSTRING "${hex}" 16 -1 rest)
        set(hex "${start}00000000${rest}")
      endif()
      string(REGEX REPLACE "(..)" "\\\\x\\1" literal "${hex}")
      string(APPEND text ",\n     {\"${literal}\", ${size}}")
    endforeach()
    string(APPEND text "},\n")
  endforeach()
  string(APPEND text "};\n\n}  // namespace\n\nconst std::span<const WebFile> kWebFiles = kFiles;\n\n}  // namespace ${namespace}\n")
  quiver_write_source("${source}" "${text}")
endfunction()
