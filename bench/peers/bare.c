/* bare.c - the machine's own limits: a row stored and nothing else, two cache lines back and forth, memcpy. */
#include "../bench.h"
#define CAN_LIMITS
#define CAN_PROCESSES
#define CAN_IN_PLACE
#define CAN_HUGE
#define ANY_CAPACITY
struct shared { int none; };
#include "../main.h"
