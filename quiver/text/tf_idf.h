// TF-IDF vectors of texts, as scikit-learn's TfidfVectorizer computes them by default.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace quiver::text {

/// The entries of a vector that are not 0, by ascending index.
struct SparseVector {
  std::vector<std::int64_t> indices;
  std::vector<double> values;  ///< as many as indices
};

/// What was learnt from a collection of N texts.
struct TfIdf {
  std::vector<std::string> terms;  ///< every word of the texts once, in the order of their code points
  std::vector<double> idf;         ///< of terms[i], which is in n_i texts: ln((1 + N) / (1 + n_i)) + 1
};

/// The words that are counted: of the text in lower case the longest runs of two or more word characters (Python's \b\w\w+\b), which are
/// letters, numbers and '_'; marks are not, so an accent that is a character of its own ends a word. Lower case is that of every
/// character, and a capital sigma after a letter and not before one becomes a final sigma. Bytes that are not UTF-8 separate words.
std::vector<std::string> tf_idf_words(std::string_view text);

/// Throws kUsage if no text has a word.
TfIdf fit_tf_idf(std::span<const std::string> texts);

/// How often each term is in the text, times its idf, scaled to unit length. Words that are no terms are left out; a text without
/// terms has no entries.
SparseVector tf_idf_vector(const TfIdf& model, std::string_view text);

/// <a, b> / (|a| |b|); 0 if one has no entries.
double cosine(const SparseVector& a, const SparseVector& b);

}  // namespace quiver::text
