// What a VMM that turned hostile may answer, say on its event monitor, or let its guest print:
// nothing of it may crash the agent or make it keep much.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "node-agent/vmm/api_client.h"
#include "node-agent/vmm/api_error.h"
#include "node-agent/vmm/event_monitor.h"
#include "node-agent/vmm/serial_ring.h"
#include "node-agent/vmm/version.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace vmm = dormouse::vmm;
  const std::string_view text(reinterpret_cast<const char*>(data), size);

  const auto chain = vmm::ParseErrorChain(text);
  if (chain.size() > 16) std::abort();
  const dormouse::Error error = vmm::ErrorFromResponse("vm.boot", 500, text);
  if (error.message().size() > 32 * 1024) std::abort();
  (void)vmm::ParsePing(text);
  (void)vmm::ParseVmInfo(text);
  (void)vmm::ParseVersionOutput(text);

  // Events are the same wherever the stream was cut.
  vmm::EventParser whole;
  const size_t at_once = whole.Feed(text).size();
  vmm::EventParser halves;
  const size_t first = halves.Feed(text.substr(0, size / 2)).size();
  if (first + halves.Feed(text.substr(size / 2)).size() != at_once) std::abort();

  vmm::SerialRing ring(256);
  ring.Append(text.substr(0, size / 3));
  ring.Append(text.substr(size / 3));
  if (ring.Contents() != text.substr(size - std::min<size_t>(size, 256))) std::abort();
  (void)ring.LastLines(5);
  return 0;
}
