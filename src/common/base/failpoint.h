// Named places where a test makes the product fail, die or stand still.
//
// A failpoint costs one relaxed atomic load while none is armed. They are armed by the environment,
//   DORMOUSE_FAILPOINTS="dm.load=1*error(ENOSPC)->1*kill;agent.step.before.boot-vm@ns/web-1=park"
// or, so that a running agent can be steered, by a file of the same text that
// DORMOUSE_FAILPOINTS_FILE names; it is read again when it changes. Grammar, after containerd's
// failpoints:
//   list   = entry { ";" entry }           entry  = name [ "@" subject ] "=" action { "->" action }
//   action = [ count "*" ] verb            verb   = off | error(ERRNO) | kill | park | delay(ms)
// `kill` is SIGKILL to ourselves, `park` stops the calling thread for good (until the kill that the
// test sends). A subject confines an entry to one sandbox ("namespace/name"). Without a count an
// action goes on for ever; a spent list lets pass. Every hit is listed in
// DORMOUSE_FAILPOINTS_TRACE, one "name subject" a line, so that a test can wait for it, and
// enumerate the steps.
//
// Thread-safe.
#pragma once

#include <string>
#include <string_view>

#include "src/common/base/result.h"

namespace dormouse::failpoint {

/// Does what is armed for `name`; an error(...) action comes back as the failure "failpoint <name>:
/// ERRNO".
Result<> Hit(std::string_view name, std::string_view subject = {});

/// Arms `list` in place of all that was armed. kInvalid with the offending entry.
Result<> Arm(std::string_view list);
void DisarmAll();

/// Reads the environment. Called once at the start of main; without the variables nothing is ever
/// armed.
Result<> ArmFromEnvironment();

}  // namespace dormouse::failpoint
