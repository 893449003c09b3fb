// The style sheets and scripts of a page, which are the files of quiver/report/assets. Each begins with a line break.
#pragma once

#include <string_view>

namespace quiver::report {

extern const std::string_view kReportJs;
extern const std::string_view kTraceJs;
extern const std::string_view kStyleCss;
extern const std::string_view kStyleDarkCss;   ///< the colours on a dark screen
extern const std::string_view kStylePrintCss;  ///< paper is white whatever the screen is; charts and rows are not torn apart
extern const std::string_view kTraceCss;

}  // namespace quiver::report
