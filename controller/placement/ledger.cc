#include "controller/placement/ledger.h"

namespace dormouse::controller {

bool Ledger::Erase(Holdings* from, const std::string& uid) {
  const auto found = from->find(uid);
  if (found == from->end()) return false;
  const auto node = reserved_.find(found->second.node);
  node->second -= found->second.amount;
  if (node->second == Amount{}) reserved_.erase(node);
  from->erase(found);
  return true;
}

void Ledger::Insert(Holdings* into, const std::string& uid, const Holding& holding) {
  Erase(into, uid);
  reserved_[holding.node] += holding.amount;
  into->emplace(uid, holding);
}

bool Ledger::Observe(const std::string& uid, const Holding& holding) {
  bool freed = false;
  for (const Holdings* holdings : {&observed_, &promised_}) {
    const auto old = holdings->find(uid);
    if (old == holdings->end()) continue;
    const Amount &before = old->second.amount, &after = holding.amount;
    freed = freed || old->second.node != holding.node || before.vcpus > after.vcpus ||
            before.memory_bytes > after.memory_bytes || before.sandboxes > after.sandboxes ||
            before.disk_bytes > after.disk_bytes;
  }
  Erase(&promised_, uid);
  Insert(&observed_, uid, holding);
  return freed;
}

bool Ledger::ObserveUnplaced(const std::string& uid) {
  return Erase(&observed_, uid);
}

bool Ledger::Forget(const std::string& uid) {
  const bool observed = Erase(&observed_, uid);
  return Erase(&promised_, uid) || observed;
}

void Ledger::Promise(const std::string& uid, const Holding& holding) {
  Insert(&promised_, uid, holding);
}

std::optional<Holding> Ledger::Promised(const std::string& uid) const {
  const auto found = promised_.find(uid);
  if (found == promised_.end()) return std::nullopt;
  return found->second;
}

bool Ledger::Withdraw(const std::string& uid) {
  return Erase(&promised_, uid);
}

Amount Ledger::Reserved(const std::string& node) const {
  const auto found = reserved_.find(node);
  return found == reserved_.end() ? Amount{} : found->second;
}

}  // namespace dormouse::controller
