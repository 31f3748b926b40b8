#include "node-agent/record/record.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "node-agent/record/template_record.h"
#include "src/common/base/sealed_json.h"
#include "src/common/base/time.h"

namespace dormouse {
namespace {

Record Example() {
  Record record;
  record.cluster_id = "c1";
  record.uid = *api::SandboxUid::Parse("0b9c1f0e-8a52-4a39-9d0c-6f3c1f1f7a11");
  record.ns = "default";
  record.name = "web-1";
  record.image_name = "debian-12";
  record.image_digest = std::string(64, 'a');
  record.image_bytes = 1 << 20;
  record.disk_bytes = 2 << 20;
  record.resources = {2, 1LL << 30};
  record.slot = 7;
  record.incarnation = 3;
  record.vmm = ProcessHint{4711, 99, "boot"};
  record.restart_count = 2;
  record.ending = Ending{"VMMCrashed", "killed by SIGKILL", false, std::nullopt,
                         *ParseTime("2026-01-01T00:00:00Z")};
  record.disk_boot_spent = true;
  record.wake_refused = 7;
  record.not_before = ParseTime("2026-01-01T00:00:10Z");
  return record;
}

// The text of `record` with its body changed by `edit`, under a right checksum.
std::string Edited(const Record& record, const std::function<void(nlohmann::json& body)>& edit) {
  std::string text;
  const Seal seal{"record", Record::kVersion};
  EXPECT_TRUE(OpenSealedJson(seal, EncodeRecord(record), [&](nlohmann::json body) {
    edit(body);
    text = SealJson(seal, body);
  }));
  return text;
}

TEST(RecordTest, ComesBackAsItWasWritten) {
  const Record record = Example();
  const auto decoded = DecodeRecord(EncodeRecord(record));
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, record);
}

TEST(RecordTest, WhatAnEarlierVersionWroteBesideItIsPassedOver) {
  const Record record = Example();
  const auto decoded = DecodeRecord(Edited(record, [](nlohmann::json& body) {
    body["cell"] = {{"id", "3f2a0b5c0001"}, {"incarnation", 3}};
  }));
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(*decoded, record);
}

TEST(RecordTest, TheFiguresOfACaptureComeBackAlsoFromBeforeItsStagesWereMeasured) {
  Record record = Example();
  record.capture = CaptureFigures{1 << 20, 4096, 12, 8192};
  EXPECT_EQ(*DecodeRecord(EncodeRecord(record)), record);
  record.capture->stages = api::CaptureStages{};
  for (std::chrono::milliseconds took{10}; const auto& stage : api::kCaptureStages)
    (*record.capture->stages).*stage.took = took++;
  EXPECT_EQ(*DecodeRecord(EncodeRecord(record)), record);
}

TEST(RecordTest, ANumberThatNoIntegerHoldsIsCorrupt) {
  for (const double number : {1e19, -1e300, 0.5}) {
    const auto decoded = DecodeRecord(Edited(
        Example(), [&](nlohmann::json& body) { body["resources"]["memoryBytes"] = number; }));
    ASSERT_FALSE(decoded) << number;
    EXPECT_EQ(decoded.error().code(), ErrorCode::kCorrupt);
  }
}

TEST(RecordTest, ATimeFinerThanItIsWrittenIsReadAsItIsWritten) {
  const auto decoded = DecodeRecord(Edited(
      Example(), [](nlohmann::json& body) { body["startedAt"] = "2026-01-01T00:00:00.1234567Z"; }));
  ASSERT_TRUE(decoded) << decoded.error().message();
  EXPECT_EQ(decoded->started_at, ParseTime("2026-01-01T00:00:00.123456Z"));
  EXPECT_EQ(*DecodeRecord(EncodeRecord(*decoded)), *decoded);
}

TEST(RecordTest, OneFlippedByteAnywhereIsNoticed) {
  const std::string text = EncodeRecord(Example());
  for (size_t i = 0; i + 1 < text.size(); ++i) {
    std::string flipped = text;
    flipped[i] = static_cast<char>(flipped[i] ^ 1);
    const auto decoded = DecodeRecord(flipped);
    // A flip in JSON's white space or in the case of a hex escape could be harmless; there is none
    // here.
    EXPECT_FALSE(decoded && !(*decoded == Example())) << "at " << i;
  }
}

TEST(RecordTest, ATornOrEmptyFileIsCorruptAndNotACrash) {
  const std::string text = EncodeRecord(Example());
  for (const size_t length : {size_t{0}, size_t{1}, text.size() / 2, text.size() - 3}) {
    const auto decoded = DecodeRecord(std::string_view(text).substr(0, length));
    ASSERT_FALSE(decoded);
    EXPECT_EQ(decoded.error().code(), ErrorCode::kCorrupt);
  }
}

TEST(RecordTest, FieldsOfANewerAgentSurviveARewrite) {
  auto record = DecodeRecord(Edited(Example(), [](nlohmann::json& body) {
    body["snapshotsOfTheDisk"] = {1, 2};
    body["image"]["layers"] = {"a", "b"};
    body["vmm"]["cpus"] = "0-3";
  }));
  ASSERT_TRUE(record) << record.error().message();
  record->incarnation = 4;
  record->vmm = ProcessHint{5000, 100, "boot"};
  nlohmann::json written;
  ASSERT_TRUE(OpenSealedJson({"record", Record::kVersion}, EncodeRecord(*record),
                             [&](const nlohmann::json& body) { written = body; }));
  EXPECT_EQ(written["snapshotsOfTheDisk"], nlohmann::json({1, 2}));
  EXPECT_EQ(written["image"]["layers"], nlohmann::json({"a", "b"}));
  EXPECT_EQ(written["image"]["name"], "debian-12");
  EXPECT_EQ(written["incarnation"], 4);
  EXPECT_FALSE(written["vmm"].contains("cpus")) << "of a process that is no more";
  const auto again = DecodeRecord(EncodeRecord(*record));
  ASSERT_TRUE(again);
  EXPECT_EQ(EncodeRecord(*again), EncodeRecord(*record));
  EXPECT_TRUE(DecodeRecord(EncodeRecord(Example()))->unknown.empty());
}

TEST(RecordTest, FieldsOfATemplateThatANewerAgentKnowsSurviveARewrite) {
  TemplateRecord record;
  record.uid = Example().uid;
  const Seal seal{"template", TemplateRecord::kVersion};
  std::string text;
  ASSERT_TRUE(OpenSealedJson(seal, EncodeTemplateRecord(record), [&](nlohmann::json body) {
    body["traits"]["microcode"] = "0x1";
    text = SealJson(seal, body);
  }));
  auto decoded = DecodeTemplateRecord(text);
  ASSERT_TRUE(decoded);
  decoded->retained = true;
  ASSERT_TRUE(OpenSealedJson(seal, EncodeTemplateRecord(*decoded), [](const nlohmann::json& body) {
    EXPECT_EQ(body["retained"], true);
    EXPECT_EQ(body["traits"]["microcode"], "0x1");
  }));
}

TEST(RecordTest, TheSlotOfANewerAgentsRecordIsKnownAllTheSame) {
  const int newer = Record::kVersion + 1;
  EXPECT_EQ(SlotIn(SealJson({"record", newer, newer}, {{"slot", 21}, {"new", true}})), 21U);
  EXPECT_EQ(SlotIn(SealJson({"record", newer, newer}, {{"slot", "21"}})), std::nullopt);
  EXPECT_EQ(SlotIn("{"), std::nullopt);
  EXPECT_EQ(SlotIn("[]"), std::nullopt);
}

TEST(RecordTest, ARecordThatOnlyANewerAgentMayWriteIsNotCalledCorrupt) {
  const int newer = Record::kVersion + 1;
  const auto refused = DecodeRecord(SealJson({"record", newer, newer}, {{"as", "never seen"}}));
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code(), ErrorCode::kUnsupported);
}

TEST(RecordTest, AUidThatIsAPathIsRefused) {
  std::string text = EncodeRecord(Example());
  EXPECT_FALSE(api::SandboxUid::Parse("../../etc"));
  EXPECT_FALSE(api::SandboxUid::Parse(""));
}

TEST(RecordTest, AMessageThatQuotesABinaryGuestIsKept) {
  Record record = Example();
  record.ending->message = "serial: \xff\xfe";
  EXPECT_TRUE(DecodeRecord(EncodeRecord(record)));
}

}  // namespace
}  // namespace dormouse
