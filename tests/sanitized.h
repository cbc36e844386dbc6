/* sanitized.h: CHECK_SANITIZED is 1 under the address or the thread sanitizer. */
#ifndef SANITIZED_H
#define SANITIZED_H

#if defined __SANITIZE_THREAD__ || defined __SANITIZE_ADDRESS__
#define CHECK_SANITIZED 1
#elif defined __has_feature
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define CHECK_SANITIZED 1
#endif
#endif
#ifndef CHECK_SANITIZED
#define CHECK_SANITIZED 0
#endif

#endif
