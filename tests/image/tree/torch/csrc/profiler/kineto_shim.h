#pragma once
#include <ActivityType.h>
