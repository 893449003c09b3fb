// The non-linear functions of MLPs. Without libtorch, for descriptions of models.
#pragma once

namespace quiver::backend {

enum class Activation {
  kSilu,      ///< x sigmoid(x)
  kGelu,      ///< x Phi(x) = x (1 + erf(x / sqrt 2)) / 2  (Hendrycks & Gimpel 2016)
  kGeluTanh,  ///< x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, its approximation
  kRelu,      ///< max(x, 0)
};

}  // namespace quiver::backend
