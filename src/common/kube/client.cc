#include "src/common/kube/client.h"

#include <nlohmann/json.hpp>

#include "src/common/base/json_text.h"

namespace dormouse::kube {
namespace {

using nlohmann::json;

ErrorCode CodeOf(int status, const std::string& reason) {
  if (reason == "AlreadyExists") return ErrorCode::kAlreadyExists;
  switch (status) {
    case 400:
    case 405:
    case 406:
    case 413:
    case 415:
    case 422:
      return ErrorCode::kInvalid;
    case 401:
    case 403:
      return ErrorCode::kPermission;
    case 404:
      return ErrorCode::kNotFound;
    case 409:
      return ErrorCode::kConflict;
    case 504:
      return ErrorCode::kDeadline;
    default:
      return ErrorCode::kUnavailable;
  }
}

void AddQuery(std::string& target, std::string_view name, std::string_view value) {
  target += target.find('?') == std::string::npos ? '?' : '&';
  target += name;
  target += '=';
  target += PercentEncode(value);
}

}  // namespace

Error ErrorOfAnswer(std::string_view what, const HttpResponse& answer) {
  std::string message;
  std::string reason;
  const json status = json::parse(answer.body, nullptr, false);
  if (status.is_object()) {
    if (auto it = status.find("message"); it != status.end() && it->is_string()) message = *it;
    if (auto it = status.find("reason"); it != status.end() && it->is_string()) reason = *it;
  }
  if (message.empty()) message = answer.body.substr(0, 200);
  // A server-side apply of a field that an older CRD does not have is answered 500, without a
  // reason (apimachinery 1.36, managedfields/internal/structuredmerge.go). No retry helps.
  const int status_code =
      answer.status == 500 && message.find("field not declared in schema") != message.npos
          ? 422
          : answer.status;
  Error error(CodeOf(status_code, reason),
              std::string(what) + ": " + std::to_string(answer.status) + ": " + message);
  return answer.retry_after ? error.WithRetryAfter(*answer.retry_after) : error;
}

Client::Client(std::shared_ptr<HttpTransport> transport, ClientOptions options)
    : transport_(std::move(transport)), options_(std::move(options)) {
  if (options_.requests_per_second > 0) {
    bucket_.emplace(options_.requests_per_second, options_.burst, *options_.clock);
  }
}

Result<std::string> Client::Call(const char* verb, const ResourceType& type, const ObjectKey& key,
                                 HttpRequest request) {
  if (bucket_) {
    const auto wait = bucket_->Take();
    if (wait.count() > 0) (void)options_.waiter->Wait(wait, std::stop_token());
  }
  const std::string what = std::string(verb) + " " + type.plural + " " + key.ToString();
  request.timeout = options_.timeout;
  auto answer = transport_->Request(request);
  if (!answer) return Fail(answer.error().Wrap(what));
  if (answer->status >= 200 && answer->status < 300) return std::move(answer->body);
  return Fail(ErrorOfAnswer(what, *answer));
}

Result<std::string> Client::Get(const ResourceType& type, const ObjectKey& key) {
  return Call("get", type, key, {.target = type.Path(key.ns, key.name)});
}

Result<std::string> Client::Create(const ResourceType& type, const std::string& ns,
                                   std::string_view object) {
  HttpRequest request{.method = "POST",
                      .target = type.Path(ns),
                      .content_type = "application/json",
                      .body = std::string(object)};
  AddQuery(request.target, "fieldManager", options_.field_manager);
  AddQuery(request.target, "fieldValidation", "Strict");
  std::string name;
  if (auto ref = RefOfText(object)) name = ref->key.name;
  return Call("create", type, {ns, name}, std::move(request));
}

Result<std::string> Client::Update(const ResourceType& type, const ObjectKey& key,
                                   std::string_view object, const std::string& subresource) {
  HttpRequest request{.method = "PUT",
                      .target = type.Path(key.ns, key.name, subresource),
                      .content_type = "application/json",
                      .body = std::string(object)};
  AddQuery(request.target, "fieldManager", options_.field_manager);
  AddQuery(request.target, "fieldValidation", "Strict");
  return Call("update", type, key, std::move(request));
}

Result<std::string> Client::Apply(const ResourceType& type, const ObjectKey& key,
                                  std::string_view object, const ApplyOptions& options) {
  HttpRequest request{.method = "PATCH",
                      .target = type.Path(key.ns, key.name, options.subresource),
                      .content_type = "application/apply-patch+yaml",
                      .body = std::string(object)};
  AddQuery(request.target, "fieldManager",
           options.field_manager.empty() ? options_.field_manager : options.field_manager);
  AddQuery(request.target, "fieldValidation", "Strict");
  if (options.force) AddQuery(request.target, "force", "true");
  if (!options.resource_version.empty()) {
    json guarded = json::parse(object, nullptr, false);
    if (!guarded.is_object()) return Fail(ErrorCode::kInvalid, "apply: not a JSON object");
    guarded["metadata"]["resourceVersion"] = options.resource_version.text();
    request.body = JsonText(guarded);
  }
  return Call("apply", type, key, std::move(request));
}

Result<std::string> Client::JsonPatch(const ResourceType& type, const ObjectKey& key,
                                      std::string_view patch, const PatchOptions& options) {
  HttpRequest request{.method = "PATCH",
                      .target = type.Path(key.ns, key.name, options.subresource),
                      .content_type = "application/json-patch+json",
                      .body = std::string(patch)};
  AddQuery(request.target, "fieldManager",
           options.field_manager.empty() ? options_.field_manager : options.field_manager);
  auto result = Call("patch", type, key, std::move(request));
  // A failed `test` is a 422 as an invalid object is; a server's own words tell them apart.
  if (!result && result.error().code() == ErrorCode::kInvalid &&
      patch.find("\"test\"") != std::string_view::npos &&
      result.error().message().find(
          "the server rejected our request due to an error in our request") != std::string::npos) {
    return Fail(result.error().WithCode(ErrorCode::kConflict));
  }
  return result;
}

Result<std::string> Client::MergePatch(const ResourceType& type, const ObjectKey& key,
                                       std::string_view patch, const PatchOptions& options) {
  HttpRequest request{.method = "PATCH",
                      .target = type.Path(key.ns, key.name, options.subresource),
                      .content_type = "application/merge-patch+json",
                      .body = std::string(patch)};
  AddQuery(request.target, "fieldManager",
           options.field_manager.empty() ? options_.field_manager : options.field_manager);
  return Call("patch", type, key, std::move(request));
}

Result<> Client::Delete(const ResourceType& type, const ObjectKey& key,
                        const DeleteOptions& options) {
  json body{{"kind", "DeleteOptions"}, {"apiVersion", "v1"}};
  if (!options.uid.empty()) body["preconditions"]["uid"] = options.uid;
  if (!options.resource_version.empty()) {
    body["preconditions"]["resourceVersion"] = options.resource_version.text();
  }
  if (!options.propagation.empty()) body["propagationPolicy"] = options.propagation;
  auto result = Call("delete", type, key,
                     {.method = "DELETE",
                      .target = type.Path(key.ns, key.name),
                      .content_type = "application/json",
                      .body = JsonText(body)});
  if (!result) return Fail(std::move(result).error());
  return {};
}

}  // namespace dormouse::kube
