-- One row per package.
select
    package_id,
    name as package_name,
    destination_code,
    destination_name,
    destination_type,
    kind as package_kind,
    coverage,
    allowance,
    data_mb,
    validity_days,
    voice_minutes,
    sms,
    price_minor_usd,
    floor_micros as price_floor_micros,
    best_offer_id,
    best_landed_micros as best_cost_micros,
    offer_count,
    on_sale as is_on_sale,
    version as catalogue_version,
    updated_at
from raw.packages
