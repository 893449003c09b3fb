#include "quiver/text/tf_idf.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "quiver/base/error.h"
#include "quiver/text/unicode.h"

namespace quiver::text {
namespace {

/// \w of Python's regular expressions.
bool is_python_word(char32_t c) { return is_letter(c) || is_numeric(c) || c == '_'; }

}  // namespace

std::vector<std::string> tf_idf_words(std::string_view text) {
  const std::string lower = lowercase(replace_invalid_utf8(text));
  const auto size = static_cast<std::int64_t>(lower.size());
  std::vector<std::string> words;
  std::int64_t begin = 0;   // of the current run
  std::int64_t length = 0;  // in characters
  for (std::int64_t i = 0; i <= size;) {
    const auto [c, num_bytes] = i < size ? code_point_at(lower, i) : CodePoint{' ', 1};
    if (is_python_word(c)) {
      ++length;
    } else {
      if (length >= 2) words.push_back(lower.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(i - begin)));
      begin = i + num_bytes;
      length = 0;
    }
    i += num_bytes;
  }
  return words;
}

TfIdf fit_tf_idf(std::span<const std::string> texts) {
  std::map<std::string, double> num_texts_with;  // in byte order, which UTF-8 makes that of code points
  for (const auto& text : texts) {
    const auto words = tf_idf_words(text);
    for (const auto& word : std::set<std::string>(words.begin(), words.end())) num_texts_with[word] += 1;
  }
  if (num_texts_with.empty()) fail(ErrorKind::kUsage, "none of {} texts has a word of two characters or more to count", texts.size());
  TfIdf model;
  for (const auto& [term, count] : num_texts_with) {
    model.terms.push_back(term);
    model.idf.push_back(std::log((1 + static_cast<double>(texts.size())) / (1 + count)) + 1);
  }
  return model;
}

SparseVector tf_idf_vector(const TfIdf& model, std::string_view text) {
  std::map<std::int64_t, double> counts;
  for (const auto& word : tf_idf_words(text)) {
    const auto found = std::lower_bound(model.terms.begin(), model.terms.end(), word);
    if (found != model.terms.end() && *found == word) counts[found - model.terms.begin()] += 1;
  }
  SparseVector vector;
  double square = 0;
  for (const auto& [index, count] : counts) {
    vector.indices.push_back(index);
    vector.values.push_back(count * model.idf[static_cast<std::size_t>(index)]);
    square += vector.values.back() * vector.values.back();
  }
  for (double& value : vector.values) value /= std::sqrt(square);
  return vector;
}

double cosine(const SparseVector& a, const SparseVector& b) {
  const auto square_of = [](const SparseVector& vector) {
    double sum = 0;
    for (const double value : vector.values) sum += value * value;
    return sum;
  };
  const double squares = square_of(a) * square_of(b);
  if (!(squares > 0)) return 0;
  double product = 0;
  for (std::size_t i = 0, j = 0; i < a.indices.size() && j < b.indices.size();) {
    if (a.indices[i] == b.indices[j]) {
      product += a.values[i++] * b.values[j++];
    } else if (a.indices[i] < b.indices[j]) {
      ++i;
    } else {
      ++j;
    }
  }
  return product / std::sqrt(squares);
}

}  // namespace quiver::text
