#include "cli/commands.h"

#include <nlohmann/json.hpp>

#include "cli/display.h"
#include "cli/text.h"
#include "cli/waiting.h"
#include "src/common/api/sandbox.h"
#include "src/common/base/files.h"
#include "src/common/base/json_text.h"
#include "src/common/kube/client.h"

namespace dormouse::cli {
namespace {

using api::OperatingMode;
using nlohmann::json;

const kube::ResourceType kSandboxes{api::kGroup, api::kVersion, "sandboxes", true};
const kube::ResourceType kTemplates{api::kGroup, api::kVersion, "snapshottemplates", true};

/// "sandbox.dormouse.dev/s1", as kubectl names it.
std::string NameOf(const Followed& object) {
  return (object.type.plural == kTemplates.plural ? "snapshottemplate." : "sandbox.") +
         std::string(api::kGroup) + "/" + object.key.name;
}

/// An object that was written, what was said of it, and what is said when the wish has come true.
struct Written {
  Awaited awaited;
  std::string said;
  std::string in_the_end;
};

class Command {
 public:
  Command(const Options& options, kube::Client& client) : options_(options), client_(client) {}

  Result<Written> SetMode(const std::string& name, OperatingMode mode) {
    const bool suspends = mode == OperatingMode::kSuspended;
    const json patch{{"spec", {{"operatingMode", suspends ? "Suspended" : "Running"}}}};
    auto answer = client_.MergePatch(kSandboxes, Key(name), JsonText(patch));
    if (!answer) return Fail(Explained(answer.error(), "sandbox", name));
    DORMOUSE_ASSIGN(Awaited awaited, SandboxOf(*answer, mode));
    return Written{std::move(awaited), suspends ? "told to suspend" : "told to resume",
                   suspends ? "suspended" : "running"};
  }

  Result<Written> Freeze(const std::string& name) {
    // The API would wait for a sandbox to come; whoever types a name means one that is there.
    if (auto there = client_.Get(kSandboxes, Key(name)); !there)
      return Fail(Explained(there.error(), "sandbox", name));
    const json body{
        {"apiVersion", api::kApiVersion},
        {"kind", "SnapshotTemplate"},
        {"metadata", {{"name", options_.snapshot_template}, {"namespace", options_.ns}}},
        {"spec", {{"source", {{"sandbox", {{"name", name}}}}}}}};
    const auto answer = client_.Create(kTemplates, options_.ns, JsonText(body));
    if (!answer) return Fail(Explained(answer.error(), "template", options_.snapshot_template));
    DORMOUSE_ASSIGN(const kube::ObjectRef ref, kube::RefOfText(*answer));
    return Written{{{kTemplates, ref.key, ref.uid}, JudgeTemplate}, "created", "ready"};
  }

  Result<Written> Clone(const std::string& name) {
    const json body{
        {"apiVersion", api::kApiVersion},
        {"kind", "Sandbox"},
        {"metadata", {{"name", name}, {"namespace", options_.ns}}},
        {"spec", {{"source", {{"snapshotTemplate", {{"name", options_.snapshot_template}}}}}}}};
    const auto answer = client_.Create(kSandboxes, options_.ns, JsonText(body));
    if (!answer) return Fail(Explained(answer.error(), "sandbox", name));
    DORMOUSE_ASSIGN(Awaited awaited, SandboxOf(*answer, OperatingMode::kRunning));
    return Written{std::move(awaited), "created", "running"};
  }

  /// As Freeze: the API would wait for it.
  Result<> NeedTemplate() {
    const auto there = client_.Get(kTemplates, Key(options_.snapshot_template));
    if (!there) return Fail(Explained(there.error(), "template", options_.snapshot_template));
    return {};
  }

 private:
  [[nodiscard]] kube::ObjectKey Key(const std::string& name) const { return {options_.ns, name}; }

  [[nodiscard]] Error Explained(const Error& error, const std::string& kind,
                                const std::string& name) const {
    const std::string what = kind + " \"" + name + "\"";
    const std::string where = " in namespace \"" + options_.ns + "\"";
    if (error.code() == ErrorCode::kNotFound) return error.Wrap("there is no " + what + where);
    if (error.code() == ErrorCode::kAlreadyExists)
      return error.Wrap("there is a " + what + where + " already");
    return error;
  }

  static Result<Awaited> SandboxOf(const std::string& answer, OperatingMode mode) {
    const json object = json::parse(answer, nullptr, false);
    DORMOUSE_ASSIGN(const api::Sandbox sandbox, api::ParseSandbox(object));
    const Wish wish{mode, sandbox.meta.generation};
    return Awaited{{kSandboxes, sandbox.meta.key(), sandbox.meta.uid},
                   [wish](const json& now) -> Result<Progress> {
                     DORMOUSE_ASSIGN(const api::Sandbox seen, api::ParseSandbox(now));
                     return Judge(seen, wish);
                   }};
  }

  const Options& options_;
  kube::Client& client_;
};

int Await(const Options& options, const std::vector<Written>& written,
          kube::HttpTransport& transport, const Io& io) {
  std::vector<std::string> names;
  std::vector<Awaited> awaited;
  for (const Written& one : written) {
    names.push_back(one.awaited.object.key.name);
    awaited.push_back(one.awaited);
  }
  Display display(io.err, TerminalOf(io.err), std::move(names));
  const std::vector<Progress> ended = WaitFor(transport, awaited, options.timeout, display);
  int code = kExitDone;
  for (std::size_t i = 0; i < written.size(); ++i) {
    const std::string name = NameOf(awaited[i].object);
    switch (ended[i].standing) {
      case Standing::kDone:
        (void)WriteAll(io.out, name + " " + written[i].in_the_end + "\n");
        break;
      case Standing::kFailed:
        code = Report(io, name + ": " + ended[i].why);
        break;
      case Standing::kWaiting:
        (void)Report(io, name + " is not " + written[i].in_the_end + " after " +
                             Elapsed(options.timeout) +
                             (ended[i].phase.empty() ? "" : ", but " + ended[i].phase) +
                             (ended[i].why.empty() ? "" : ": " + ended[i].why));
        if (code == kExitDone) code = kExitTimedOut;
        break;
    }
  }
  return code;
}

}  // namespace

int Report(const Io& io, const std::string& message) {
  (void)WriteAll(io.err, "error: " + OneLine(message) + "\n");
  return kExitFailed;
}

int Run(const Options& options, const std::shared_ptr<kube::HttpTransport>& transport,
        const Io& io) {
  kube::Client client(transport, {.field_manager = "kubectl-dormouse"});
  Command command(options, client);
  if (options.verb == Verb::kClone) {
    if (const auto there = command.NeedTemplate(); !there)
      return Report(io, there.error().message());
  }
  int code = kExitDone;
  std::vector<Written> written;
  for (const std::string& name : options.sandboxes) {
    Result<Written> one =
        options.verb == Verb::kSuspend    ? command.SetMode(name, OperatingMode::kSuspended)
        : options.verb == Verb::kResume   ? command.SetMode(name, OperatingMode::kRunning)
        : options.verb == Verb::kSnapshot ? command.Freeze(name)
                                          : command.Clone(name);
    if (!one) {
      code = Report(io, one.error().message());
      continue;
    }
    // What is made stays, whatever becomes of the wait; a mode is only worth a word once it is
    // reached.
    const bool made = options.verb == Verb::kSnapshot || options.verb == Verb::kClone;
    if (made || !options.wait)
      (void)WriteAll(io.out, NameOf(one->awaited.object) + " " + one->said + "\n");
    written.push_back(std::move(*one));
  }
  if (!options.wait || written.empty()) return code;
  const int waited = Await(options, written, *transport, io);
  return code == kExitDone ? waited : code;
}

}  // namespace dormouse::cli
