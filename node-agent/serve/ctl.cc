#include "node-agent/serve/ctl.h"

#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "node-agent/record/paths.h"
#include "node-agent/serve/console_file.h"
#include "node-agent/serve/ctl_json.h"
#include "node-agent/serve/terminal.h"
#include "src/common/base/files.h"

namespace dormouse {
namespace {

constexpr int kOurError = 255;
constexpr int kLeaksFound = 1;

struct Arguments {
  std::string socket = Paths{}.ControlSocket();
  std::string output;
  std::string sandbox;
  std::vector<std::string> command;
  std::vector<std::string> env;
  std::string user, directory;
  bool interactive = false, terminal = false;
  bool follow = false, console = false, remove = false;
  uint64_t tail = kAllLines;
};

int Report(const CtlIo& io, const Error& error) {
  (void)WriteAll(io.err, "error: " + Printable(error.message()) + "\n");
  return kOurError;
}

/// What failed on the way to the agent, in words that say what to do.
Error Explained(const Error& error, const std::string& socket) {
  switch (error.errnum()) {
    case ENOENT:
    case ECONNREFUSED:
      return {error.code(),
              "no agent answers on " + socket + ": is dormouse-agent running on this node?"};
    case EACCES:
      return {error.code(), socket + " is for root only"};
    default:
      return error;
  }
}

Result<int> List(const Arguments& arguments, const CtlIo& io) {
  DORMOUSE_ASSIGN(std::string text, AskAgent(arguments.socket, {.verb = CtlVerb::kList}));
  if (arguments.output != "json") {
    DORMOUSE_ASSIGN(text,
                    SandboxTable(text, arguments.output == "wide", Clock::System().WallNow()));
  }
  DORMOUSE_TRY(WriteAll(io.out, text));
  return 0;
}

Result<int> Show(const Arguments& arguments, const CtlIo& io) {
  CtlRequest request{.verb = CtlVerb::kShow};
  DORMOUSE_ASSIGN(request.sandbox, ParseSandboxName(arguments.sandbox));
  DORMOUSE_ASSIGN(std::string text, AskAgent(arguments.socket, request));
  if (arguments.output != "json") {
    DORMOUSE_ASSIGN(text, Outline(text));
  } else if (text.empty() || text.back() != '\n') {
    text.push_back('\n');
  }
  DORMOUSE_TRY(WriteAll(io.out, text));
  return 0;
}

Result<int> Sweep(const Arguments& arguments, const CtlIo& io) {
  DORMOUSE_ASSIGN(const std::string text, AskAgent(arguments.socket, {.verb = CtlVerb::kSweep,
                                                                      .remove = arguments.remove}));
  DORMOUSE_ASSIGN(const LeakTable table, MakeLeakTable(text));
  DORMOUSE_TRY(WriteAll(io.out, arguments.output == "json" ? text : table.text));
  return table.count == 0 ? 0 : kLeaksFound;
}

Result<int> Logs(const Arguments& arguments, const CtlIo& io) {
  CtlRequest request{.verb = arguments.console ? CtlVerb::kConsole : CtlVerb::kLogs};
  DORMOUSE_ASSIGN(request.sandbox, ParseSandboxName(arguments.sandbox));
  request.lines = arguments.tail;
  request.follow = arguments.follow;
  auto ended = RunOverAgent(arguments.socket, request, io, ::isatty(io.out) != 0);
  if (!ended && ended.error().code() == ErrorCode::kUnavailable && !arguments.console &&
      ended.error().errnum() == 0) {
    return Fail(ended.error().code(),
                ended.error().message() + " (--console shows what its serial console said)");
  }
  if (!ended) return Fail(ended.error());
  return ended->ShellCode();
}

Result<guest::EnvVar> ParseEnv(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    return Fail(ErrorCode::kInvalid, "--env " + text + ": not NAME=VALUE");
  }
  return guest::EnvVar{text.substr(0, equals), text.substr(equals + 1)};
}

Result<int> Exec(const Arguments& arguments, const CtlIo& io) {
  CtlRequest request{.verb = CtlVerb::kExec};
  DORMOUSE_ASSIGN(request.sandbox, ParseSandboxName(arguments.sandbox));
  if (arguments.command.empty()) {
    return Fail(ErrorCode::kInvalid, "no command: ctl exec NS/NAME -- COMMAND [ARGUMENT]...");
  }
  guest::ExecRequest& exec = request.exec.emplace();
  exec.process.argv = arguments.command;
  exec.process.user = arguments.user;
  exec.process.working_dir = arguments.directory;
  exec.tty = arguments.terminal;
  exec.stdin_open = arguments.interactive;
  if (exec.tty) {
    exec.size = SizeOfTerminal(io.in).value_or(guest::TerminalSize{});
    const char* term = std::getenv("TERM");
    exec.process.env.emplace_back("TERM", term != nullptr ? term : "xterm");
  }
  for (const std::string& text : arguments.env) {
    DORMOUSE_ASSIGN(guest::EnvVar variable, ParseEnv(text));
    exec.process.env.push_back(std::move(variable));
  }
  DORMOUSE_ASSIGN(const guest::ExitStatus ended,
                  RunOverAgent(arguments.socket, request, io, false));
  return ended.ShellCode();
}

/// The verbs as CLI11 parses them.
class CommandLine {
 public:
  CommandLine()
      : app_("Looks at the sandboxes of this node through its agent.", "dormouse-agent ctl") {
    app_.require_subcommand(1);
    app_.add_option("--socket", arguments_.socket, "the agent's socket")->capture_default_str();
    CLI::App* list = Add("list", "the sandboxes of this node", List);
    AddOutput(list, {"wide", "json"});
    CLI::App* show = Add("show", "a sandbox as the agent, the kernel and the API see it", Show);
    AddOutput(show, {"json"});
    AddSandbox(show);
    CLI::App* exec = Add("exec", "run a command in a sandbox", Exec);
    exec->add_flag("-i,--stdin", arguments_.interactive, "pass stdin on");
    exec->add_flag("-t,--tty", arguments_.terminal, "give the command a terminal");
    exec->add_option("-e,--env", arguments_.env, "NAME=VALUE for the command")
        ->expected(1)
        ->take_all();
    exec->add_option("-u,--user", arguments_.user, "user, or user:group, in the guest");
    exec->add_option("-w,--workdir", arguments_.directory, "working directory in the guest");
    AddSandbox(exec);
    exec->add_option("COMMAND", arguments_.command, "the command, after --");
    CLI::App* logs = Add("logs", "what a sandbox's workload wrote", Logs);
    logs->add_flag("-f,--follow", arguments_.follow, "go on as more comes");
    logs->add_flag("--console", arguments_.console, "the guest's serial console instead");
    logs->add_option("--tail", arguments_.tail, "only so many of the last lines");
    AddSandbox(logs);
    CLI::App* sweep = Add("sweep", "list what belongs to no sandbox", Sweep);
    sweep->add_flag("--remove", arguments_.remove, "remove it, and list what could not be removed");
    AddOutput(sweep, {"json"});
  }

  /// The exit code, when help was asked for or the arguments are wrong.
  std::optional<int> Parse(std::vector<std::string> args, const CtlIo& io) {
    // What follows "--" is the command's own, whatever it looks like.
    const auto dashes = std::find(args.begin(), args.end(), "--");
    std::vector<std::string> command;
    if (dashes != args.end()) command.assign(dashes + 1, args.end());
    args.erase(dashes, args.end());
    std::reverse(args.begin(), args.end());  // as CLI11 wants a vector
    try {
      app_.parse(args);
    } catch (const CLI::ParseError& error) {
      std::ostringstream out;
      std::ostringstream err;
      const bool is_help = app_.exit(error, out, err) == 0;
      (void)WriteAll(io.out, out.str());
      (void)WriteAll(io.err, err.str());
      return is_help ? 0 : kOurError;
    }
    arguments_.command.insert(arguments_.command.end(), command.begin(), command.end());
    return std::nullopt;
  }

  Result<int> Run(const CtlIo& io) const {
    const auto done = run_(arguments_, io);
    if (!done) return Fail(Explained(done.error(), arguments_.socket));
    return done;
  }

 private:
  using Verb = Result<int> (*)(const Arguments&, const CtlIo&);

  CLI::App* Add(const char* name, const char* what, Verb verb) {
    CLI::App* sub = app_.add_subcommand(name, what);
    sub->parse_complete_callback([this, verb] { run_ = verb; });
    return sub;
  }
  void AddOutput(CLI::App* sub, const std::vector<std::string>& forms) {
    sub->add_option("-o,--output", arguments_.output, "form of the output")
        ->check(CLI::IsMember(forms));
  }
  void AddSandbox(CLI::App* sub) {
    sub->add_option("SANDBOX", arguments_.sandbox, "NAMESPACE/NAME of the sandbox")->required();
  }

  CLI::App app_;
  Arguments arguments_;
  Verb run_ = nullptr;
};

}  // namespace

int RunCtl(const std::vector<std::string>& args, const CtlIo& io) {
  CommandLine line;
  if (const auto code = line.Parse(args, io)) return *code;
  const Result<int> done = line.Run(io);
  return done ? *done : Report(io, done.error());
}

int ctl_main(int argc, char** argv) {
  (void)::signal(SIGPIPE, SIG_IGN);
  return RunCtl({argv + std::min(argc, 1), argv + argc},
                {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO});
}

}  // namespace dormouse
