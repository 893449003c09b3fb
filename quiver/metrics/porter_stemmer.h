// Porter's stemmer, in the variant that the usual Rouge implementation stems with.
#pragma once

#include <string>
#include <string_view>

namespace quiver::metrics {

/// The stem of a word (Porter, "An algorithm for suffix stripping", Program 14.3, 1980), with the departures that Porter himself later
/// published and those that NLTK documents for its mode NLTK_EXTENSIONS:
///
/// - a short list of irregular words ("dying" -> "die", "news" -> "news"); words of at most two letters stay;
/// - step 1a and 1b: "ies" and "ied" keep their e in words of four letters ("ties" -> "tie", but "flies" -> "fli");
/// - step 1c: y becomes i only after a consonant that is not the first letter ("happy" -> "happi", but "say", "by");
/// - step 2: "bli" for "abli"; "fulli" -> "ful"; "logi" -> "log"; after "alli" -> "al" the step runs again;
/// - *o (the end consonant-vowel-consonant) holds for two letters vowel-consonant, too.
///
/// `word` is lower-case ASCII [a-z0-9]; digits count as consonants. Linear in its length.
std::string porter_stem(std::string_view word);

}  // namespace quiver::metrics
