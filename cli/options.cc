#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "src/common/base/time.h"

namespace dormouse::cli {
namespace {

/// RFC 1123, as the API server wants it; so it is no path either.
std::string CheckName(const std::string& name) {
  const auto is_inner = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  };
  const auto is_outer = [&is_inner](char c) { return is_inner(c) && c != '-' && c != '.'; };
  if (!name.empty() && name.size() <= 253 && is_outer(name.front()) && is_outer(name.back()) &&
      std::all_of(name.begin(), name.end(), is_inner)) {
    return "";
  }
  return "\"" + name +
         "\" is not the name of an object: lower case letters, digits, '-' and '.', such as s1";
}

class CommandLine {
 public:
  CommandLine()
      : app_("Puts sandboxes to sleep with their memory, wakes, freezes and clones them.",
             "kubectl dormouse") {
    app_.set_version_flag("--version", DORMOUSE_VERSION);
    app_.require_subcommand(1);
    app_.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    AddShared(&app_);

    CLI::App* suspend =
        Add("suspend", Verb::kSuspend, "keep the memory on disk and free everything else");
    AddSandboxes(suspend, "the sandboxes to suspend");
    CLI::App* resume = Add("resume", Verb::kResume, "wake them where they were");
    AddSandboxes(resume, "the sandboxes to resume");
    CLI::App* snapshot =
        Add("snapshot", Verb::kSnapshot, "freeze this instant of a sandbox as a template");
    snapshot->add_option("NAME", options_.sandboxes, "the sandbox to freeze")
        ->required()
        ->expected(1)
        ->multi_option_policy(CLI::MultiOptionPolicy::Throw)
        ->check(CheckName);
    snapshot->add_option("--to", options_.snapshot_template, "the SnapshotTemplate to make")
        ->required()
        ->check(CheckName)
        ->type_name("TEMPLATE");
    CLI::App* clone = Add("clone", Verb::kClone, "make sandboxes that start from a template");
    clone->add_option("TEMPLATE", options_.snapshot_template, "the SnapshotTemplate to start from")
        ->required()
        ->check(CheckName);
    AddSandboxes(clone, "the sandboxes to make");
  }

  ParsedOptions Parse(int argc, const char* const* argv) {
    ParsedOptions parsed;
    try {
      app_.parse(argc, argv);
    } catch (const CLI::ParseError& outcome) {
      parsed.run = false;
      parsed.exit_code = app_.exit(outcome) == 0 ? 0 : 1;
    }
    parsed.options = options_;
    return parsed;
  }

 private:
  CLI::App* Add(const char* name, Verb verb, const char* what) {
    CLI::App* sub = app_.add_subcommand(name, what);
    sub->option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    sub->parse_complete_callback([this, verb] { options_.verb = verb; });
    AddShared(sub);
    return sub;
  }

  /// Before the verb and after it, as with kubectl.
  void AddShared(CLI::App* app) {
    app->add_option("-n,--namespace", options_.ns, "the sandboxes' namespace; else the context's")
        ->check([](const std::string& name) { return CheckName(name); })
        ->type_name("NAMESPACE");
    app->add_option("--kubeconfig", options_.kubeconfig,
                    "where the API server is; else $KUBECONFIG, ~/.kube/config")
        ->type_name("FILE");
    app->add_option("--context", options_.context, "the kubeconfig's context")
        ->type_name("CONTEXT");
    app->add_flag("--wait", options_.wait, "return when it is so, and show how it comes along");
    app->add_option_function<std::string>(
           "--timeout",
           [this](const std::string& text) {
             const auto timeout = ParseDuration(text);
             if (!timeout || *timeout < std::chrono::milliseconds(1)) {
               throw CLI::ValidationError("--timeout",
                                          "must be a duration such as 90s or 5m, not " + text);
             }
             options_.timeout = *timeout;
           },
           "how long --wait waits [5m]")
        ->type_name("DURATION");
  }

  void AddSandboxes(CLI::App* sub, const char* what) {
    sub->add_option("NAME", options_.sandboxes, what)
        ->required()
        ->expected(-1)
        ->multi_option_policy(CLI::MultiOptionPolicy::Throw)
        ->check(CheckName);
  }

  CLI::App app_;
  Options options_;
};

}  // namespace

ParsedOptions ParseOptions(int argc, const char* const* argv) {
  return CommandLine().Parse(argc, argv);
}

}  // namespace dormouse::cli
