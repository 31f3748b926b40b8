// Freeze and thaw: the part of messages.h that goes around a snapshot.
#include <nlohmann/json.hpp>

#include "src/common/guest/json_reader.h"

namespace dormouse::guest {
namespace {

using Json = nlohmann::json;

Identity ReadIdentity(Reader& outer, const Json& field) {
  Reader reader(field, "identity");
  Identity identity;
  identity.hostname = reader.String("hostname", kMaxHostname, true);
  identity.machine_id = reader.String("machineId", kMachineIdDigits, true);
  if (identity.hostname.empty()) reader.Reject("hostname is empty");
  if (!IsMachineId(identity.machine_id)) reader.Reject("machineId is not 32 hexadecimal digits");
  outer.Absorb(reader);
  return identity;
}

}  // namespace

std::string Encode(const FreezeRequest& request) {
  return Framed(FrameType::kFreeze, {{"limitMs", request.limit_ms}});
}

Result<FreezeRequest> ParseFreeze(std::string_view json) {
  Reader reader(json);
  FreezeRequest request;
  request.limit_ms =
      static_cast<uint32_t>(reader.Unsigned("limitMs", kMaxWaitMs, FreezeRequest{}.limit_ms));
  return reader.Finish(request);
}

Result<std::string> Encode(const ThawRequest& request) {
  Json json = {{"wallTimeNs", request.wall_time_ns},
               {"entropy", HexEncode(request.entropy)},
               {"isResume", request.is_resume}};
  if (request.new_identity) {
    json["identity"] = {{"hostname", request.new_identity->hostname},
                        {"machineId", request.new_identity->machine_id}};
  }
  return FramedIfFits(FrameType::kThaw, json, "thaw request");
}

Result<ThawRequest> ParseThaw(std::string_view json) {
  Reader reader(json);
  ThawRequest request;
  request.wall_time_ns = reader.Signed("wallTimeNs");
  if (request.wall_time_ns < 0) reader.Reject("wallTimeNs is before 1970");
  request.entropy = reader.Entropy("entropy");
  request.is_resume = reader.Bool("isResume", false);
  if (const Json* identity = reader.Find("identity")) {
    request.new_identity = ReadIdentity(reader, *identity);
  }
  if (request.entropy.empty() && (request.is_resume || request.new_identity)) {
    reader.Reject("entropy is missing: what woke from a snapshot must not go on without");
  }
  return reader.Finish(std::move(request));
}

std::string EncodeReply(const FreezeReply& reply) {
  return Framed(FrameType::kReply, {{"frozen", reply.frozen},
                                    {"detail", reply.detail.substr(0, kMaxErrorText)},
                                    {"tookMs", reply.took_ms},
                                    {"agentVersion", reply.agent_version}});
}

Result<FreezeReply> ParseFreezeReply(std::string_view json) {
  Reader reader(json);
  FreezeReply reply;
  if (reader.Find("frozen") == nullptr) reader.Reject("frozen is missing");
  reply.frozen = reader.Bool("frozen", false);
  // Text that is not UTF-8 grows when it is encoded.
  reply.detail = reader.String("detail", 4 * kMaxErrorText).substr(0, kMaxErrorText);
  reply.took_ms = static_cast<uint32_t>(reader.Unsigned("tookMs", UINT32_MAX, 0));
  reply.agent_version = reader.String("agentVersion", 64);
  return reader.Finish(std::move(reply));
}

}  // namespace dormouse::guest
