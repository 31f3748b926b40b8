#include "node-agent/serve/ctl_protocol.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "src/common/base/json_text.h"

namespace dormouse {
namespace {

using nlohmann::json;

struct VerbName {
  CtlVerb verb;
  std::string_view name;
  bool of_a_sandbox;
};
constexpr std::array<VerbName, 6> kVerbs = {{{CtlVerb::kList, "list", false},
                                             {CtlVerb::kShow, "show", true},
                                             {CtlVerb::kExec, "exec", true},
                                             {CtlVerb::kLogs, "logs", true},
                                             {CtlVerb::kConsole, "console", true},
                                             {CtlVerb::kSweep, "sweep", false}}};

const VerbName& Named(CtlVerb verb) {
  return *std::find_if(kVerbs.begin(), kVerbs.end(),
                       [verb](const VerbName& entry) { return entry.verb == verb; });
}

/// What a namespace or an object may be called (RFC 1123, with dots).
bool IsName(std::string_view text) {
  const auto allowed = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  };
  return !text.empty() && text.size() <= 253 && std::all_of(text.begin(), text.end(), allowed) &&
         text.front() != '.' && text.front() != '-';
}

Error Wrong(const std::string& what) {
  return {ErrorCode::kInvalid, "request: " + what};
}

/// False when there is none; an error when it is something else.
Result<bool> OptionalFlag(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end()) return false;
  if (!found->is_boolean()) return Fail(Wrong(std::string(key) + " is not a boolean"));
  return found->get<bool>();
}

Result<std::string> RequiredText(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_string())
    return Fail(Wrong(std::string(key) + " is not a text"));
  return found->get<std::string>();
}

}  // namespace

Result<kube::ObjectKey> ParseSandboxName(std::string_view text) {
  const size_t slash = text.find('/');
  const std::string_view ns = slash == std::string_view::npos ? "default" : text.substr(0, slash);
  const std::string_view name = slash == std::string_view::npos ? text : text.substr(slash + 1);
  if (!IsName(ns) || !IsName(name)) {
    return Fail(ErrorCode::kInvalid,
                "'" + std::string(text.substr(0, 100)) + "' is not NAMESPACE/NAME of a sandbox");
  }
  return kube::ObjectKey{std::string(ns), std::string(name)};
}

Result<std::string> EncodeCtlRequest(const CtlRequest& request) {
  const VerbName& verb = Named(request.verb);
  json object = {{"verb", verb.name}};
  if (verb.of_a_sandbox) object["sandbox"] = request.sandbox.ToString();
  if (request.lines != kAllLines) object["lines"] = request.lines;
  if (request.follow) object["follow"] = true;
  if (request.remove) object["remove"] = true;
  if (request.exec) {
    DORMOUSE_ASSIGN(const std::string frame, guest::Encode(*request.exec));
    object["exec"] = json::parse(std::string_view(frame).substr(guest::kFrameHeaderBytes));
  }
  return JsonText(object) + "\n";
}

Result<CtlRequest> ParseCtlRequest(std::string_view line) {
  const json object = json::parse(line, nullptr, false);
  if (!object.is_object()) return Fail(Wrong("not a JSON object"));
  CtlRequest request;
  DORMOUSE_ASSIGN(const std::string name, RequiredText(object, "verb"));
  const auto verb = std::find_if(kVerbs.begin(), kVerbs.end(),
                                 [&](const VerbName& entry) { return entry.name == name; });
  if (verb == kVerbs.end()) return Fail(Wrong("verb '" + name.substr(0, 40) + "' is not known"));
  request.verb = verb->verb;
  if (verb->of_a_sandbox) {
    DORMOUSE_ASSIGN(const std::string sandbox, RequiredText(object, "sandbox"));
    DORMOUSE_ASSIGN(request.sandbox, ParseSandboxName(sandbox));
  }
  if (const auto lines = object.find("lines"); lines != object.end()) {
    if (!lines->is_number_unsigned()) return Fail(Wrong("lines is not a number"));
    request.lines = lines->get<uint64_t>();
  }
  DORMOUSE_ASSIGN(request.follow, OptionalFlag(object, "follow"));
  DORMOUSE_ASSIGN(request.remove, OptionalFlag(object, "remove"));
  if (request.verb == CtlVerb::kExec) {
    const auto exec = object.find("exec");
    if (exec == object.end()) return Fail(Wrong("exec is missing"));
    DORMOUSE_ASSIGN(request.exec, guest::ParseExec(JsonText(*exec)));
  }
  return request;
}

}  // namespace dormouse
