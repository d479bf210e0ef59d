-- ARGV: hex, version, holder, duration, grace
-- A lease is "<holder> <until when> <since when somebody else has asked, or nothing>". It is kept when it ran out: its holder
-- may be about to commit what the provider answered while the store was out of reach.
only_here()
local value = redis.call('GET', KEYS[1])
local head = read(value)
if not head then return gone(value) end
if head.v ~= tonumber(ARGV[4]) then return {'changed', value} end
local lease, here = prefix .. ':l:' .. ARGV[3], now()
local held = redis.call('GET', lease)
if held then
    local holder, ends, contested = string.match(held, '^(%d+) ?(%d*) ?(%d*)$')
    if holder ~= ARGV[5] then
        -- An earlier version let leases expire.
        if ends == '' or here < tonumber(ends) then return {'held'} end
        if contested == '' then
            redis.call('SET', lease, holder .. ' ' .. ends .. ' ' .. text(here), 'KEEPTTL')
            return {'held'}
        end
        if here < tonumber(contested) + tonumber(ARGV[7]) then return {'held'} end
    end
end
redis.call('SET', lease, ARGV[5] .. ' ' .. text(here + tonumber(ARGV[6])), 'PX', text(tonumber(ARGV[6]) + 60000))
return {'granted'}
