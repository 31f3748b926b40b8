#include "src/common/kube/tls_credentials.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>

#include "src/common/base/files.h"

namespace dormouse::kube {
namespace {

constexpr std::size_t kMaxPemBytes = 4 * 1024 * 1024;

using Bio = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;

Bio Memory(const std::string& text) {
  return {BIO_new_mem_buf(text.data(), static_cast<int>(text.size())), &BIO_free};
}

Certificate FirstCertificate(const std::string& pem) {
  return {PEM_read_bio_X509(Memory(pem).get(), nullptr, nullptr, nullptr), &X509_free};
}

Result<std::string> Read(const PemSource& source) {
  if (!source.data.empty() || source.file.empty()) return source.data;
  return ReadFile(source.file, kMaxPemBytes);
}

/// No terminal to ask for a passphrase on.
int NoPassphrase(char*, int, int, void*) {
  return 0;
}

}  // namespace

Result<TlsCredentials> ReadTlsCredentials(const ClusterConfig& config,
                                          const ClientIdentity& identity) {
  TlsCredentials credentials;
  DORMOUSE_ASSIGN(credentials.ca_pem, Read(config.ca));
  if (!config.ca.empty() && !FirstCertificate(credentials.ca_pem)) {
    return Fail(ErrorCode::kInvalid,
                "certificate authority " + config.ca.file + ": holds no certificate");
  }
  if (!identity.certificate_pem.empty()) {
    credentials.certificate_pem = identity.certificate_pem;
    credentials.key_pem = identity.key_pem;
  } else {
    DORMOUSE_ASSIGN(credentials.certificate_pem, Read(config.client_certificate));
    DORMOUSE_ASSIGN(credentials.key_pem, Read(config.client_key));
  }
  if (credentials.certificate_pem.empty()) return credentials;
  const std::string what = "client certificate " + config.client_certificate.file + ": ";
  const Certificate certificate = FirstCertificate(credentials.certificate_pem);
  if (!certificate) return Fail(ErrorCode::kInvalid, what + "holds no certificate");
  const Key key(
      PEM_read_bio_PrivateKey(Memory(credentials.key_pem).get(), nullptr, &NoPassphrase, nullptr),
      &EVP_PKEY_free);
  if (!key)
    return Fail(ErrorCode::kInvalid, what + "its key does not parse, or wants a passphrase");
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return Fail(ErrorCode::kInvalid, what + "does not belong to the key");
  }
  return credentials;
}

}  // namespace dormouse::kube
