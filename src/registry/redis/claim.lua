-- ARGV: hex, version, holder, duration. Leases go by the clock of the store: those of replicas may differ.
only_here()
local value = redis.call('GET', KEYS[1])
local head = read(value)
if not head then return {'gone', reason_of(value)} end
if head.v ~= tonumber(ARGV[4]) then return {'changed', value} end
local lease = prefix .. ':l:' .. ARGV[3]
local holder = redis.call('GET', lease)
if holder and holder ~= ARGV[5] then return {'held'} end
redis.call('SET', lease, ARGV[5], 'PX', ARGV[6])
return {'granted'}
