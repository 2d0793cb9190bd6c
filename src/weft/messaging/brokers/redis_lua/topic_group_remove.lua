-- KEYS settings, groups, expiring, waiting, partitions. ARGV group.
remove_group(KEYS[1], KEYS[2], KEYS[3], KEYS[4], { unpack(KEYS, 5) }, ARGV[1])
return 1
