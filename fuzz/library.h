// The fuzz targets of a library's files: quiver.json, mixing/<kind>.safetensors, artifacts/<key>.json.
#pragma once

#include "fuzz/support.h"
#include "quiver/base/error.h"
#include "quiver/io/safetensors.h"
#include "quiver/library/catalogue.h"
#include "quiver/library/records.h"

namespace quiver::fuzz {

inline void run_catalogue(std::span<const std::byte> bytes) {
  try {
    const auto text = library::catalogue_text(library::parse_catalogue(text_of(bytes), "fuzz"));
    expect(library::catalogue_text(library::parse_catalogue(text, "copy")) == text, "a catalogue changed in a round trip");
  } catch (const Error&) {
  }
}

inline void run_mixing(std::span<const std::byte> bytes) {
  try {
    const auto view = io::SafetensorsView::parse(bytes, "fuzz");
    const auto metadata = library::mixing_metadata(library::parse_mixing(view));
    const auto copy = io::serialize_safetensors(view.entries(), {metadata});
    const auto again = io::SafetensorsView::parse(std::as_bytes(std::span(copy)), "copy");
    expect(library::mixing_metadata(library::parse_mixing(again)) == metadata, "a mixture changed in a round trip");
  } catch (const Error&) {
  }
}

inline void run_artifact(std::span<const std::byte> bytes) {
  try {
    const auto text = library::artifact_record_text(library::parse_artifact_record(text_of(bytes), "fuzz"), "a record");
    expect(library::artifact_record_text(library::parse_artifact_record(text, "copy"), "a record") == text,
           "a record changed in a round trip");
  } catch (const Error&) {
  }
}

}  // namespace quiver::fuzz
