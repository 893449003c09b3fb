#include "quiver/tensor/mapped.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <torch/utils.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "quiver/tensor/tensor.h"

namespace quiver::tensor {
namespace {

namespace fs = std::filesystem;

/// A file of two tensors, removed at the end of the test.
class Mapped : public ::testing::Test {
 protected:
  Mapped() {
    std::string name = fs::temp_directory_path() / "quiver-mapped-XXXXXX";
    close(mkstemp(name.data()));
    path_ = name;
    save_tensors(path_, tensors_);
  }
  ~Mapped() override { fs::remove(path_); }

  static std::size_t pages_in_memory(std::span<const std::byte> bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<std::uintptr_t>(bytes.data()) + page - 1) / page * page;
    const auto length = bytes.data() + bytes.size() - reinterpret_cast<const std::byte*>(begin);
    // Of this process's own table of pages: mincore tells of the cache of files.
    std::size_t count = 0;
    FILE* table = std::fopen("/proc/self/pagemap", "rb");
    if (table == nullptr) throw std::runtime_error("cannot read /proc/self/pagemap");
    for (std::size_t i = 0; i < static_cast<std::size_t>(length) / page; ++i) {
      std::uint64_t entry = 0;
      std::fseek(table, static_cast<long>((begin / page + i) * sizeof(entry)), SEEK_SET);
      if (std::fread(&entry, sizeof(entry), 1, table) == 1) count += entry >> 63;
    }
    std::fclose(table);
    return count;
  }

  fs::path path_;
  const TensorMap tensors_ = {{"large", torch::arange(1 << 18, torch::kFloat).view({512, 512})},
                              {"small", torch::tensor({1.5, -2.0}).to(torch::kBFloat16)}};
};

TEST_F(Mapped, IsTheFileWithoutACopy) {
  const io::MappedFile file(path_);
  const auto view = io::SafetensorsView::parse(file.bytes(), "test");
  for (const auto& [name, expected] : tensors_) {
    const auto tensor = mapped_tensor(view.at(name), file);
    EXPECT_TRUE(tensor.equal(expected)) << name;
    EXPECT_EQ(tensor.const_data_ptr(), static_cast<const void*>(view.at(name).data.data())) << name;
  }
}

TEST_F(Mapped, LivesLongerThanTheFileObject) {
  torch::Tensor tensor;
  {
    const io::MappedFile file(path_);
    tensor = mapped_tensor(io::SafetensorsView::parse(file.bytes(), "test").at("large"), file);
  }
  EXPECT_TRUE(tensor.equal(tensors_.at("large")));
}

TEST_F(Mapped, GivesItsPagesBack) {
  const io::MappedFile file(path_);
  const auto view = io::SafetensorsView::parse(file.bytes(), "test");
  const auto bytes = view.at("large").data;
  auto tensor = mapped_tensor(view.at("large"), file);
  const double sum = tensor.sum().item<double>();
  EXPECT_GT(pages_in_memory(bytes), 200);
  release_pages(tensor);
  EXPECT_EQ(pages_in_memory(bytes), 0);
  EXPECT_EQ(tensor.sum().item<double>(), sum);
  tensor.reset();
  EXPECT_EQ(pages_in_memory(bytes), 0);
  const auto own = tensors_.at("large").clone();
  release_pages(own);
  EXPECT_TRUE(own.equal(tensors_.at("large")));
}

TEST_F(Mapped, CopiesWhatIsNotAligned) {
  const io::MappedFile file(path_);
  auto entry = io::SafetensorsView::parse(file.bytes(), "test").at("large");
  entry.data = entry.data.subspan(1, 4 * 8);
  entry.shape = {8};
  EXPECT_NE(mapped_tensor(entry, file).const_data_ptr(), static_cast<const void*>(entry.data.data()));
}

}  // namespace
}  // namespace quiver::tensor
