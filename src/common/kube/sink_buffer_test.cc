#include "src/common/kube/sink_buffer.h"

#include <gmock/gmock.h>

namespace dormouse::kube {
namespace {

class SinkBufferTest : public testing::Test {
 protected:
  pplx::task<size_t> Put(std::string_view bytes) {
    return buffer_->putn_nocopy(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  std::string heard_;
  Result<> verdict_;
  std::shared_ptr<SinkBuffer> buffer_ =
      std::make_shared<SinkBuffer>([this](int status, std::string_view bytes) {
        heard_ += std::to_string(status) + ":" + std::string(bytes) + ";";
        return verdict_;
      });
};

TEST_F(SinkBufferTest, AWriteIsDoneWhenTheSinkHasTakenIt) {
  buffer_->OnStatus(200);
  auto put = Put("abc");
  ASSERT_TRUE(put.is_done());
  EXPECT_EQ(put.get(), 3u);
  EXPECT_EQ(heard_, "200:abc;");
}

TEST_F(SinkBufferTest, AWriteThatComesBeforeTheStatusWaitsForIt) {
  auto put = Put("abc");
  EXPECT_FALSE(put.is_done()) << "the library reads no further";
  EXPECT_EQ(heard_, "");
  buffer_->OnStatus(404);
  EXPECT_EQ(put.get(), 3u);
  EXPECT_EQ(heard_, "404:abc;");
}

TEST_F(SinkBufferTest, ARefusalEndsTheBody) {
  verdict_ = Fail(ErrorCode::kCorrupt, "garbage");
  buffer_->OnStatus(200);
  EXPECT_ANY_THROW(Put("abc").get());
  EXPECT_EQ(buffer_->refusal()->code(), ErrorCode::kCorrupt);
}

TEST_F(SinkBufferTest, NothingReachesTheSinkOnceItWasDetached) {
  auto waiting = Put("abc");
  buffer_->Detach();
  EXPECT_ANY_THROW(waiting.get());
  buffer_->OnStatus(200);
  EXPECT_ANY_THROW(Put("def").get());
  EXPECT_EQ(heard_, "");
}

}  // namespace
}  // namespace dormouse::kube
