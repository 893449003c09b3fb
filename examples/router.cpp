// A router of one's own over several PEFT adapters: how likely it makes an answer, and how often it chooses each adapter.
//
//   example_router BASE CONTEXT CONTINUATION ADAPTER...
#include <exception>
#include <iostream>

#include "quiver/quiver.h"

/// Sends a token to the adapter whose update of it is the longest: n(x) = argmax_n |s_n B_n A_n x|, with weight 1.
class LongestUpdate final : public quiver::routing::Router {
 public:
  explicit LongestUpdate(std::vector<quiver::adapters::LoraPair> pairs) : pairs_(std::move(pairs)) {}
  std::int64_t num_adapters() const override { return static_cast<std::int64_t>(pairs_.size()); }

 protected:
  quiver::routing::RoutingDecision decide(const torch::Tensor& x, std::span<const std::int32_t>) const override {
    std::vector<torch::Tensor> lengths;  // [T] of each adapter
    for (const auto& pair : pairs_) lengths.push_back(pair.apply(x.to(torch::kFloat)).norm(2, /*dim=*/-1));
    const auto index = torch::stack(lengths, /*dim=*/1).argmax(/*dim=*/1, /*keepdim=*/true);  // [T, 1]
    return {index, torch::ones_like(index, torch::kFloat)};
  }

 private:
  std::vector<quiver::adapters::LoraPair> pairs_;
};

int main(int argc, char** argv) try {
  using namespace quiver;
  if (argc < 5) fail(ErrorKind::kUsage, "usage: example_router BASE CONTEXT CONTINUATION ADAPTER...");
  const auto base = methods::load_base(argv[1], tensor::resolve_placement("auto", "float32"));
  std::vector<adapters::LoraAdapter> adapters;
  for (int i = 4; i < argc; ++i) adapters.push_back(adapters::load_peft(argv[i]));
  routing::check_alike(adapters);  // all change the same linear maps

  routing::RoutingRecorder recorder;
  auto linears = base.lm.linears();
  std::map<std::string, routing::RouterPtr> routers;  // one for each linear map that the adapters change
  for (const auto& [path, first] : adapters[0].pairs) {
    std::vector<adapters::LoraPair> pairs;
    for (const auto& adapter : adapters) pairs.push_back(adapter.pairs.at(path).to(base.lm.placement().device, torch::kFloat));
    routers[path] = std::make_shared<LongestUpdate>(std::move(pairs));
  }
  routing::attach_routers(linears, adapters, routers, routing::Combine::kOutputs, &recorder);

  const std::vector<forest::Sequence> requests = {data::encode_request(base.tokenizer, argv[2], argv[3])};
  NoProgress quiet;
  for (const auto& [name, model] : {std::pair("base", base.lm), std::pair("routed", base.lm.with_linears(linears))}) {
    std::cout << name << ": log p = " << eval::score_sequences(model, requests, {}, quiet)[0].log_prob << "\n";
  }
  const auto usages = recorder.usage().at("");  // by path
  for (std::size_t n = 0; n < adapters.size(); ++n) {
    std::int64_t count = 0;
    for (const auto& [path, usage] : usages) count += usage.choices[n];
    std::cout << adapters[n].name << ": chosen " << count << " times\n";
  }
} catch (const std::exception& error) {
  std::cerr << error.what() << "\n";
  return 1;
}
