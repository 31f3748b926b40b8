#include "node-agent/keeper/memory_keeper.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "node-agent/machine/memory_test_parts.h"
#include "src/common/base/metrics.h"

namespace dormouse {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;

const api::SandboxUid kOne = *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11");
const api::SandboxUid kTwo = *api::SandboxUid::Parse("1b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a22");
const api::SandboxUid kWarm = *api::SandboxUid::Parse("2b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a33");

bool Always() {
  return true;
}

class MemoryKeeperTest : public ::testing::Test {
 protected:
  MemoryKeeperTest() {
    clock_.Advance(20'000 * 24h);  // long after the time that says "damaged"
    Restart();
  }
  void Restart() {
    keeper_ = std::make_unique<MemoryKeeper>(
        options_, paths_, records_, templates_,
        [this](const api::SandboxUid& owner, uint64_t generation,
               const std::optional<std::string>& damage) {
          told_.push_back(owner.text() + " " + std::to_string(generation) + " " +
                          damage.value_or("whole"));
        },
        clock_);
  }
  GenerationName Asleep(const api::SandboxUid& uid, uint64_t number) {
    GenerationName generation{uid, number, paths_.Generation(uid, number)};
    WriteGeneration(generation);
    Record record;
    record.uid = uid;
    record.intent = Intent::kSuspended;
    record.sleeping = number;
    EXPECT_OK(records_.Save(record));
    return generation;
  }
  void Wake(const GenerationName& generation) {
    Record record = *records_.Find(generation.owner);
    record.intent = Intent::kRun;
    EXPECT_OK(records_.Save(record));
  }
  GenerationName Template() {
    GenerationName generation{kWarm, 0, paths_.Template(kWarm)};
    WriteGeneration(generation);
    TemplateRecord record;
    record.uid = kWarm;
    record.name = "warm";
    EXPECT_OK(templates_.Commit(record));
    return generation;
  }
  static std::string File(const GenerationName& generation, const char* file) {
    return generation.directory + "/" + file;
  }
  static bool HasDigests(const GenerationName& generation) {
    return PathExists(File(generation, kDigestsFile));
  }
  static double Scrubs(const char* result) {
    return metrics::Registry::Default()
        .MakeCounter("dormouse_memory_scrubs_total", "", {{"result", result}})
        .Value();
  }
  // Until it has been seen for long enough, and once more.
  void TendFor(std::chrono::seconds time) {
    keeper_->Tend(Always);
    clock_.Advance(time);
    keeper_->Tend(Always);
  }

  host::ScratchDirectory scratch_;
  Paths paths_{scratch_ / "state", scratch_ / "run"};
  FakeClock clock_;
  RecordStore records_{paths_, "cluster-1"};
  TemplateStore templates_{paths_, "cluster-1"};
  MemoryKeeperOptions options_;
  std::vector<std::string> told_;
  std::unique_ptr<MemoryKeeper> keeper_;
};

TEST_F(MemoryKeeperTest, WhatHasSleptForAWhileGetsItsDigestsAndAShortSleepCostsNothing) {
  const auto sleeper = Asleep(kOne, 1);
  const auto warm = Template();
  TendFor(59s);
  EXPECT_FALSE(HasDigests(sleeper) || HasDigests(warm));
  clock_.Advance(1s);
  keeper_->Tend(Always);
  EXPECT_EQ(ReadDigests(sleeper.directory, TestManifest(sleeper)), DigestsOf(sleeper));
  EXPECT_EQ(ReadDigests(warm.directory, TestManifest(warm)), DigestsOf(warm));
  EXPECT_TRUE(told_.empty());
}

TEST_F(MemoryKeeperTest, OnlyWhatChangedIsReadWhereTheParentsAreKnown) {
  const auto sleeper = Asleep(kOne, 2);
  memory::Manifest manifest = TestManifest(sleeper);
  manifest.parent = 1;
  manifest.changed_chunks = {{2, 1}};
  WriteManifest(sleeper, manifest);
  memory::MemoryDigests parent = DigestsOf(sleeper);
  parent.generation = 1;
  parent.chunks[0] = Sha256("what only the parent can know");
  parent.chunks[2] = Sha256("old");
  ASSERT_OK(WriteFileAtomically(File(sleeper, kParentDigestsFile), memory::EncodeDigests(parent)));
  TendFor(60s);
  const auto digests = ReadDigests(sleeper.directory, manifest);
  ASSERT_TRUE(digests);
  EXPECT_EQ(digests->chunks[0], parent.chunks[0]);
  EXPECT_EQ(digests->chunks[2], DigestsOf(sleeper).chunks[2]);
  EXPECT_FALSE(PathExists(File(sleeper, kParentDigestsFile)));
}

TEST_F(MemoryKeeperTest, WhatGoesWhileItIsReadIsNoError) {
  const auto sleeper = Asleep(kOne, 1);
  keeper_->Tend(Always);
  clock_.Advance(60s);
  keeper_->Tend([&] {
    (void)records_.Remove(kOne);
    return true;
  });
  EXPECT_FALSE(PathExists(sleeper.directory));
  // After the last look at the record, and before it is written.
  const auto other = Asleep(kTwo, 1);
  keeper_->Tend(Always);
  clock_.Advance(60s);
  int chunks = 0;
  keeper_->Tend([&] {
    if (++chunks == 4) (void)records_.Remove(kTwo);
    return true;
  });
  EXPECT_GE(chunks, 4);
  EXPECT_FALSE(PathExists(other.directory));
  EXPECT_TRUE(told_.empty());
}

TEST_F(MemoryKeeperTest, AWakeEndsTheReading) {
  const auto sleeper = Asleep(kOne, 1);
  keeper_->Tend(Always);
  clock_.Advance(60s);
  keeper_->Tend([&] {
    Wake(sleeper);
    return true;
  });
  EXPECT_FALSE(HasDigests(sleeper));
  EXPECT_EQ(ListDirectory(sleeper.directory)->size(), 2U) << "nothing half written is left";
}

TEST_F(MemoryKeeperTest, StoppingEndsTheReadingAndNothingIsWritten) {
  const auto sleeper = Asleep(kOne, 1);
  keeper_->Tend(Always);
  clock_.Advance(60s);
  int asked = 0;
  keeper_->Tend([&] { return ++asked < 3; });
  EXPECT_FALSE(HasDigests(sleeper));
  EXPECT_TRUE(told_.empty());
}

TEST_F(MemoryKeeperTest, WhatWasCountedMayGiveSpaceBackAndIsNotReadForIt) {
  const auto sleeper = Asleep(kOne, 1);
  const std::string file = File(sleeper, kMemoryFile);
  SetAside(file, 3 * memory::kChunkBytes, memory::kChunkBytes);
  if (host::DataBytes(file).value() == TestManifest(sleeper).memory.bytes)
    GTEST_SKIP() << "this file system tells no holes";
  MarkVerified(paths_, sleeper, IdentityOf(sleeper.directory, Holes::kLeave));
  keeper_->Tend(Always);
  EXPECT_EQ(ReadMark(paths_, sleeper), IdentityOf(sleeper.directory, Holes::kCount))
      << "its capture had no time to count";
  LoseExtents(file, 3 * memory::kChunkBytes, memory::kChunkBytes);
  EXPECT_TRUE(IsVerified(paths_, sleeper));
  keeper_->Tend(Always);
  EXPECT_EQ(ReadMark(paths_, sleeper), IdentityOf(sleeper.directory, Holes::kCount))
      << "the next start counts nothing";
  LoseExtents(file, 0, 4096);
  keeper_->Tend(Always);
  EXPECT_FALSE(IsVerified(paths_, sleeper));
}

TEST_F(MemoryKeeperTest, WhatGaveSpaceBackBeforeItWasCountedIsNotTakenForWhole) {
  const auto sleeper = Asleep(kOne, 1);
  MarkVerified(paths_, sleeper, IdentityOf(sleeper.directory, Holes::kLeave));
  LoseExtents(File(sleeper, kMemoryFile), 0, 4096);
  keeper_->Tend(Always);
  EXPECT_FALSE(IsVerified(paths_, sleeper));
}

TEST_F(MemoryKeeperTest, ExtentsThatAreLostBeforeTheDigestsAreToldAndNotDigested) {
  const auto sleeper = Asleep(kOne, 1);
  const std::string file = File(sleeper, kMemoryFile);
  MarkVerified(paths_, sleeper, IdentityOf(sleeper.directory, Holes::kLeave));
  keeper_->Tend(Always);
  LoseExtents(file, memory::kChunkBytes, 8192);
  TendFor(60s);
  ASSERT_EQ(told_.size(), 1U);
  EXPECT_THAT(told_[0], HasSubstr(kOne.text() + " 1 "));
  EXPECT_THAT(told_[0], HasSubstr("8 KiB less than when it was captured"));
  EXPECT_FALSE(HasDigests(sleeper)) << "the zeros would verify";
  const auto used = MemoryCheck(paths_).BeforeUse(sleeper, TestManifest(sleeper));
  ASSERT_FALSE(used) << "a wake fails by what the keeper has found";
  EXPECT_EQ(used.error().code(), ErrorCode::kCorrupt);
  Restart();
  TendFor(60s);
  EXPECT_EQ(told_.size(), 2U) << "nor has an agent that starts forgotten it";
  EXPECT_FALSE(HasDigests(sleeper));
  ASSERT_OK(WriteFileAtomically(file, TestMemory()));
  TendFor(7 * 24h);
  ASSERT_EQ(told_.size(), 3U);
  EXPECT_THAT(told_[2], HasSubstr("whole"));
  EXPECT_TRUE(HasDigests(sleeper));
}

TEST_F(MemoryKeeperTest, DigestsMarkNothingAsVerified) {
  const auto sleeper = Asleep(kOne, 1);
  TendFor(60s);
  ASSERT_TRUE(HasDigests(sleeper));
  EXPECT_FALSE(IsVerified(paths_, sleeper)) << "they are of what is there now";
}

TEST_F(MemoryKeeperTest, TheScrubFindsAFlippedByteSaysWhereAndRemovesNothing) {
  const double damaged_before = Scrubs("damaged");
  const double intact_before = Scrubs("intact");
  const auto sleeper = Asleep(kOne, 1);
  TendFor(60s);
  MarkVerified(paths_, sleeper, IdentityOf(sleeper.directory, Holes::kLeave));
  FlipByte(File(sleeper, kMemoryFile), 2 * memory::kChunkBytes + 7);
  TendFor(7 * 24h - 61s);
  EXPECT_TRUE(told_.empty()) << "not before it is due";
  TendFor(61s);
  ASSERT_EQ(told_.size(), 1U);
  EXPECT_THAT(told_[0], HasSubstr(kOne.text() + " 1 "));
  EXPECT_THAT(told_[0], HasSubstr("memory chunk 2 of 4 (at offset 4194304) differs"));
  EXPECT_EQ(Scrubs("damaged"), 1 + damaged_before);
  EXPECT_TRUE(PathExists(File(sleeper, kMemoryFile)));
  EXPECT_FALSE(IsVerified(paths_, sleeper)) << "its next use reads it";
  TendFor(60s);
  EXPECT_EQ(told_.size(), 1U) << "it is not read over and over";
  Restart();
  keeper_->Tend(Always);
  EXPECT_EQ(told_.size(), 2U) << "an agent that starts looks at it first";
  // Put right by hand.
  FlipByte(File(sleeper, kMemoryFile), 2 * memory::kChunkBytes + 7);
  TendFor(7 * 24h);
  ASSERT_EQ(told_.size(), 3U);
  EXPECT_THAT(told_[2], HasSubstr("whole"));
  EXPECT_TRUE(IsVerified(paths_, sleeper));
  EXPECT_EQ(Scrubs("intact"), 1 + intact_before);
}

TEST_F(MemoryKeeperTest, DamageThatWasRemovedWithItsSandboxIsOver) {
  const auto sleeper = Asleep(kOne, 1);
  ASSERT_EQ(::truncate(File(sleeper, kMemoryFile).c_str(), 5), 0);
  TendFor(60s);
  ASSERT_EQ(told_.size(), 1U) << "that it is cut is seen at once";
  ASSERT_OK(records_.Remove(kOne));
  keeper_->Tend(Always);
  ASSERT_EQ(told_.size(), 2U);
  EXPECT_THAT(told_[1], HasSubstr("whole"));
}

TEST_F(MemoryKeeperTest, TheLongestNotVerifiedIsReadFirst) {
  const auto one = Asleep(kOne, 1);
  const auto two = Asleep(kTwo, 1);
  TendFor(60s);
  // The second is older by an hour than the first, which comes first by its name.
  const auto since =
      std::chrono::duration_cast<std::chrono::seconds>(clock_.WallNow().time_since_epoch() - 1h);
  const timespec older[] = {{since.count(), 0}, {since.count(), 0}};
  ASSERT_EQ(::utimensat(AT_FDCWD, File(two, kDigestsFile).c_str(), older, 0), 0);
  FlipByte(File(one, kMemoryFile), 0);
  FlipByte(File(two, kMemoryFile), 0);
  TendFor(7 * 24h);
  ASSERT_EQ(told_.size(), 2U);
  EXPECT_THAT(told_[0], HasSubstr(kTwo.text()));
  EXPECT_THAT(told_[1], HasSubstr(kOne.text()));
}

TEST_F(MemoryKeeperTest, ZeroMeansNever) {
  options_.scrub_every = 0s;
  Restart();
  const auto sleeper = Asleep(kOne, 1);
  TendFor(60s);
  FlipByte(File(sleeper, kMemoryFile), 0);
  TendFor(365 * 24h);
  EXPECT_TRUE(told_.empty());
}

TEST_F(MemoryKeeperTest, DigestsThatCannotBeReadAreComputedAnew) {
  const auto sleeper = Asleep(kOne, 1);
  TendFor(60s);
  ASSERT_OK(WriteFileAtomically(File(sleeper, kDigestsFile), "torn"));
  TendFor(60s);  // its time is the machine's own, and so yet to come
  EXPECT_TRUE(ReadDigests(sleeper.directory, TestManifest(sleeper)));
}

TEST_F(MemoryKeeperTest, StopsWhileItWaits) {
  (void)Asleep(kOne, 1);
  keeper_->Start();
  keeper_->Stop();
}

}  // namespace
}  // namespace dormouse
