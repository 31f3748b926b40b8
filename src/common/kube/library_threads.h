// cpprestsdk's thread pool, and the tasks on it.
//
// Its pool drops at the process's end whatever is queued: tasks half done, with the connections and
// buffers that they hold. So the queue is counted, and an end can wait until it is empty.
// Thread-safe.
#pragma once

#include <chrono>

namespace dormouse::kube {

/// Fixes the pool's size, and counts from here on. Its threads take no signals. Once, before the
/// library is first used.
void StartLibraryThreads(int threads);

/// False when tasks still waited or ran after `limit`; true where none were counted. Not to be
/// called by one of them.
bool WaitForLibraryThreads(std::chrono::milliseconds limit);

}  // namespace dormouse::kube
