-- KEYS: the index of a sid or a subject. ARGV: hex of the session whose siblings are asked for, number of this partition.
-- Answers also with the names of those of other partitions.
only_here()
local elsewhere = {}
for _, hex in ipairs(redis.call('SMEMBERS', KEYS[1])) do
    if tonumber(string.sub(hex, 1, 2), 16) % 64 ~= tonumber(ARGV[4]) then
        elsewhere[#elsewhere + 1] = hex
    elseif hex ~= ARGV[3] and read(redis.call('GET', prefix .. ':s:' .. hex)) then
        return {'yes', ''}
    end
end
return {'no', table.concat(elsewhere, ' ')}
